"""The HTML file: it asks nobody for anything, no name can break it, and it says what the Markdown says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from ablab.contract.result import Distribution, Evaluation, Example, Series, Table
from ablab.lab import Lab
from ablab.report import document as d
from ablab.report import html, markdown
from ablab.report.writing import make_document
from ablab.store.events import EventWriter
from ablab.store.layout import Store
from ablab.store.notes import append_note
from ablab.study.schema import References
from tests.report.filled import fill, frozen_launch, smoke, write_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`|*{{7*7}}{%x%}&\u2028<!--</style>"
VOID = {"meta", "link", "img", "br", "hr", "input", "rect", "line", "circle", "path", "text", "title", "desc"}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, text of tables, scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag in self.raw:
            self.raw[tag].append("")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag = self._inside[-1] if self._inside else ""
        if tag in self.raw:
            self.raw[tag][-1] += data
            return
        self.text.append(data)
        if {"td", "th"} & set(self._inside) and self.tables:
            self.tables[-1][-1][-1] += data

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A study half done, with notes, references, a failure, an evaluation, and hostile text wherever text is free."""
    store, study = Store(tmp_path_factory.mktemp("store")), smoke()
    experiments = {name: replace(e, label=HOSTILE, purpose=HOSTILE) for name, e in study.experiments.items()}
    comparisons = tuple(replace(each, question=HOSTILE) for each in study.comparisons)
    references = {"trained": References(source=HOSTILE, note=HOSTILE, values={"test/perplexity": 4.27})}
    study = replace(
        study, question=HOSTILE, experiments=experiments, comparisons=comparisons, references=references, text=HOSTILE
    )
    plan = fill(store, study, status={("blind", 123, "train"): "failed", ("blind", 123, "evaluate"): "pending"})
    frozen_launch(store, study, plan)
    folder = store.study_folder(study.name, study.profile)
    append_note(folder, HOSTILE, kind="hypothesis", experiment="trained", metric="test/perplexity", status={"done": 3})
    append_note(folder, "look at the seeds " + HOSTILE, kind="next")
    run = next(run for run in plan.runs.values() if run.experiment == "trained" and run.stage.name == "evaluate")
    shown = Evaluation(
        name=HOSTILE,
        tables=(Table(name=HOSTILE, columns=("a", HOSTILE), rows=((HOSTILE, 1.5), (None, 2))),),
        series=(Series(name=HOSTILE, x=(1.0, 2.0, 3.0), y=(3.0, 2.0, 1.0), x_label=HOSTILE),),
        distributions=(Distribution(name=HOSTILE, edges=(0, 1, 2), counts=(3, 4), label=HOSTILE),),
        examples=(Example(id=HOSTILE, input=HOSTILE, output="그래요", target=HOSTILE, scores={HOSTILE: 0.5}),),
        images=("artifacts/dot.png", "../../outside.png", "artifacts/not-a-picture.png"),
    )
    path = store.run(run.name).path / "artifacts"
    path.mkdir(parents=True)
    (path / "one.json").write_text(shown.model_dump_json())
    (path / "dot.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    (path / "not-a-picture.png").write_bytes(b"<svg onload=alert(1)>")
    (store.root / "outside.png").write_bytes(b"\x89PNG outside")
    result = store.run(run.name).read_result()
    assert result is not None
    named = result.model_copy(
        update={"evaluations": ("artifacts/one.json",), "metrics": {**result.metrics, f"test/{HOSTILE}": 7.0}}
    )
    store.run(run.name).result_path.write_text(named.model_dump_json())
    train = next(run for run in plan.runs.values() if run.experiment == "trained" and run.stage.name == "train")
    with EventWriter(store.run(train.name).attempt(1).events) as events:
        events.log("step", step=21, loss=float("nan"), lr=1e-3)
    return Lab(study, store)


@pytest.fixture(scope="module")
def document(lab: Lab) -> d.Document:
    return make_document(lab.view())


@pytest.fixture(scope="module")
def text(document: d.Document) -> str:
    return html.render(document)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_nothing_is_asked_of_anybody(page: Page, text: str) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "video", "audio", "source", "use")
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in ("style", "srcset", "action", "background", "ping")
            if name in ("href", "src", "xlink:href"):
                assert value.startswith("#") or value.startswith("data:image/png;base64,"), (tag, name, value)
    assert not re.search(r"@import|url\(", "".join(page.raw["style"]))
    script = page.raw["script"][-1]
    assert not re.search(
        r"fetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|import\(|new Image|innerHTML", script
    )
    addresses = set(re.findall(r"https?://[^\s\"'<]+", script + page.raw["style"][0]))
    assert addresses == {"http://www.w3.org/2000/svg"}, "only the name of the drawing language, which is no address"


def test_the_policy_allows_this_style_and_this_script_only(page: Page) -> None:
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["base-uri"] == "'none'" and rules["form-action"] == "'none'"

    def digest(content: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    assert rules["style-src"] == digest(page.raw["style"][0])
    assert rules["script-src"] == digest(page.raw["script"][-1])


def test_hostile_names_stay_text(page: Page, text: str) -> None:
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "ablab-data"}, {}], "the data and our own script, no other"
    assert sum(tag == "style" for tag, _ in page.elements) == 1
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert [image["src"][:22] for image in images] == ["data:image/png;base64,"], "our dot, nothing outside or faked"
    assert all("onerror" not in attributes for _, attributes in page.elements)
    assert "{{7*7}}" in "".join(page.text), "shown, not computed"
    assert "<!--" not in text.replace("&lt;!--", "")


def test_the_data_of_the_script_is_json_that_nothing_can_close(page: Page) -> None:
    data = json.loads(page.raw["script"][0])
    assert not set("<>&\u2028\u2029") & set(page.raw["script"][0])
    names = {chart["title"] for figure in data["figures"] for chart in figure["charts"]}
    assert HOSTILE in names, "names come through unchanged"
    lost = [line for figure in data["figures"] for chart in figure["charts"] for line in chart["lines"]]
    assert any(None in line["y"] for line in lost), "what is not finite is a gap, not a number"


def test_every_part_can_be_reached_and_named(page: Page) -> None:
    ids = page.ids()
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in page.elements if tag == "a" and a.get("href", "").startswith("#")}
    assert targets <= set(ids), targets - set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), "no level is skipped"
    tags = [tag for tag, _ in page.elements]
    assert {"header", "nav", "main", "footer"} <= set(tags)
    for tag, attributes in page.elements:
        if tag == "img":
            assert "alt" in attributes
        if tag == "svg" and attributes.get("role") == "img":
            assert attributes.get("aria-label") or attributes.get("aria-labelledby")
        if tag == "svg" and attributes.get("role") != "img":
            assert attributes.get("aria-hidden") == "true"
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
        if attributes.get("role") == "region":
            assert attributes.get("aria-label") and attributes.get("tabindex") == "0"
    labelled = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert {name for names in labelled for name in names.split()} <= set(ids)


NUMBER = re.compile(r"[-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def test_markdown_and_html_hold_the_same_numbers(document: d.Document) -> None:
    """Every table of the Markdown is in the HTML with the same numbers in the same rows."""
    plain = replace(document, sections=tuple(map(without_code, document.sections)))
    page, lines = Page(html.render(plain)), markdown.render(plain).splitlines()
    theirs = [[NUMBER.findall(" ".join(row)) for row in table] for table in page.tables]
    compared = 0
    for table in markdown_tables(lines):
        numbers = [NUMBER.findall(row) for row in table]
        if sum(map(len, numbers)) < 3:
            continue
        if table[0].startswith("| |") or table[0] == "| comparison | criterion | verdict |":
            continue  # bars and cards, which HTML draws otherwise
        assert any(strip(numbers) == strip(other) for other in theirs), table[:3]
        compared += 1
    assert compared > 25


def without_code(section: d.Section) -> d.Section:
    """Names of runs hold digits that are no numbers, and footnote marks are set apart."""

    def plain(block: d.Block) -> d.Block:
        if isinstance(block, d.Folded):
            return replace(block, blocks=tuple(map(plain, block.blocks)))
        if isinstance(block, d.Table):
            rows = tuple(
                tuple(replace(c, text="", marks=()) if c.code else replace(c, marks=()) for c in r) for r in block.rows
            )
            return replace(block, rows=rows, caption="")
        return block

    return replace(section, blocks=tuple(map(plain, section.blocks)))


def strip(rows: list[list[str]]) -> list[list[str]]:
    return [row for row in rows if row]


def markdown_tables(lines: list[str]) -> list[list[str]]:
    tables: list[list[str]] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            if not re.fullmatch(r"[|:-]+", line):
                tables[-1].append(re.sub(r"<sup>.*?</sup>", "", line))
    return tables


def test_verdicts_come_first_and_say_word_and_symbol(page: Page, lab: Lab) -> None:
    first = next(attributes["id"] for tag, attributes in page.elements if tag == "section")
    assert first == "verdicts"
    said = " ".join("".join(page.text).split())
    assert "? undecided" in said, "colour is never alone"
    assert "66" not in said.split("Verdicts")[0]
    done = sum(run.status == "done" for run in lab.plan().runs.values())
    assert f"{done} of {len(lab.plan().runs)} runs done" in said


def test_an_empty_store_and_a_store_of_failures_have_a_report(tmp_path: Path) -> None:
    study = smoke()
    empty = Lab(study, Store(tmp_path / "empty"))
    said = " ".join("".join(Page(html.render(make_document(empty.view()))).text).split())
    assert "0 of" in said and "no seed has complete values of both arms yet" in said and "4.27" in said
    store = Store(tmp_path / "failed")
    plan = empty.plan()
    for run in plan.runs.values():
        if run.status != "planned":
            write_run(store, plan, run, 2.0, "failed", 1.7e9)
    said = " ".join("".join(Page(html.render(make_document(Lab(study, store).view()))).text).split())
    assert "loss is not finite at step 7" in said and "Mend what failed and run again" in said


def test_a_report_is_written_in_both_forms_and_summed_up(lab: Lab, tmp_path: Path) -> None:
    path = lab.report()
    assert path.name == "report.html" and path.with_suffix(".md").exists()
    summary = json.loads((path.parent / "summary.json").read_text())
    assert summary["runs"]["done"] and {each["name"] for each in summary["experiments"]} == set(lab.study.experiments)
    trained = next(each for each in summary["experiments"] if each["name"] == "trained")
    values = lab.results.values("trained", "test/perplexity")
    assert trained["metrics"]["test/perplexity"]["values"] == {str(seed): value for seed, value in values.items()}
    assert "trained" in (path.parent / "summary.txt").read_text()
    asked = lab.report(tmp_path / "own.md", language="ko")
    assert asked == tmp_path / "own.md" and '<html lang="ko">' in (tmp_path / "own.html").read_text()


@pytest.mark.parametrize("language", ["ko", "zh"])
def test_another_language_tells_the_same(lab: Lab, language: str) -> None:
    document, other = make_document(lab.view()), make_document(lab.view(language=language))
    assert [section.id for section in other.sections] == [section.id for section in document.sections]
    assert Page(html.render(other)).ids() == Page(html.render(document)).ids()
    english = {section.title for section in document.sections}
    assert not english & {section.title for section in other.sections}
