"""The report speaks three languages whole: no message without its translation, no code without a word."""

from __future__ import annotations

import ast
import gettext
import re
from pathlib import Path
from typing import get_args

import pytest

from ablab.analysis.judgement import Code, Verdict
from ablab.contract.failure import ConfigError, FailureKind
from ablab.contract.finding import Severity
from ablab.contract.result import TIMES
from ablab.plan.graph import RunStatus
from ablab.report import catalogue, words
from ablab.report.language import LANGUAGES, Translator
from ablab.store.notes import KINDS
from ablab.study.schema import Quantity

OTHERS = [language for language in LANGUAGES if language != "en"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("language", OTHERS)
def test_every_message_is_translated_and_none_is_left_over(language: str) -> None:
    said = {message if isinstance(message, str) else message[0] for message in catalogue.messages()}
    found = catalogue.read(language)
    written = {message.id if isinstance(message.id, str) else message.id[0] for message in found if message.id}
    assert len(said) > 300
    assert written == said, f"run python -m ablab.report.catalogue, then translate: {sorted(said ^ written)}"
    assert not catalogue.lacking(found)
    assert not found.obsolete


@pytest.mark.parametrize("language", OTHERS)
def test_what_is_read_is_what_was_written(language: str) -> None:
    with catalogue.po_path(language).with_suffix(".mo").open("rb") as stream:
        compiled = gettext.GNUTranslations(stream)
    for message in catalogue.read(language):
        if message.id and isinstance(message.id, str):
            assert compiled.gettext(message.id) == message.string
        elif message.id:
            assert compiled.ngettext(*message.id, 2) == message.string[0]


@pytest.mark.parametrize("language", OTHERS)
def test_translations_are_in_their_script(language: str) -> None:
    script = {"ko": r"[가-힣]", "zh": r"[一-鿿]"}[language]
    same = [
        m.id for m in catalogue.read(language) if isinstance(m.id, str) and m.id and not re.search(script, m.string)
    ]
    assert set(same) <= {"n", "p", "hub", "{metric}, {quantity}", "{metric} is {value}"}


def test_a_message_without_translation_a_fuzzy_one_and_a_lost_placeholder_are_found() -> None:
    from babel.messages.catalog import Catalog

    found = Catalog(locale="ko")
    found.add("sound", "좋음")
    found.add("empty")
    found.add("fuzzy", "흐림", flags=["fuzzy"])
    found.add("{arm} lost", "잃음")
    found.add("{n} kept", "{m} 보관")
    found.add(("{n} arm", "{n} arms"), ("실험군",))
    assert catalogue.lacking(found) == ["empty", "fuzzy", "{arm} lost", "{n} kept"]


def test_messages_are_written_down_as_whole_strings() -> None:
    """`t(f"...")` or `t(name + "...")` would never reach the catalogue; only codes of `words` are looked up by name."""
    wrong = []
    for path in sorted((ROOT / "src/ablab/report").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name == "t" and node.args and not isinstance(node.args[0], ast.Constant) and path.name != "words.py":
                wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []


def test_every_code_has_a_word() -> None:
    assert set(get_args(RunStatus)) <= set(words.STATUSES)
    assert set(get_args(Verdict)) == set(words.VERDICTS) == set(words.TONES)
    assert set(get_args(Severity)) == set(words.SEVERITIES)
    assert set(get_args(Quantity)) == set(words.QUANTITIES)
    assert set(get_args(FailureKind)) <= set(words.FAILURES)
    assert set(TIMES) == set(words.TIMES)
    assert set(KINDS) == set(words.NOTES)


def test_every_finding_has_a_title() -> None:
    sources = [*(ROOT / "src/ablab/audit").rglob("*.py"), *(ROOT / "src/ablab/tasks").glob("*/audits.py")]
    found: set[str] = set()
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if name in ("finding", "not_checked") and isinstance(node, ast.Call) and len(node.args) > 1:
                found |= {str(n.value) for n in ast.walk(node.args[1]) if isinstance(n, ast.Constant) and n.value}
    assert len(found) > 40
    assert found <= set(words.FINDINGS), f"add a title to ablab/report/words.py: {sorted(found - set(words.FINDINGS))}"


def test_every_reason_of_a_verdict_is_told() -> None:
    """Reasons are made from codes; one that has no sentence would be silent in every language."""
    text = (ROOT / "src/ablab/report/wording.py").read_text(encoding="utf-8")
    told = {code for code in get_args(Code) if f'"{code}"' in text}
    # The interval itself is the reason.
    assert set(get_args(Code)) - told == {"interval"}


def test_dates_numbers_and_counts_are_the_languages() -> None:
    moment = 1_795_331_264.2
    assert "Nov 2026" in Translator("en").when(moment)
    assert Translator("ko").when(moment).startswith("2026년 11월")
    assert Translator("zh").when(moment).startswith("2026年11月")
    for language in LANGUAGES:
        t = Translator(language)
        assert t.count(1_234_567) == "1,234,567" and t.figure(-0.25) == "−0.25" and t.percent(0.5) == "50 %"
        assert t.when(None) == "—"
        assert t.signed(2.5) == "+2.5" and t.signed(-2.5) == "−2.5" and t.signed(0) == "0"
    assert Translator("en").n("{n} seed", "{n} seeds", 1) == "1 seed"
    assert Translator("en").n("{n} seed", "{n} seeds", 3) == "3 seeds"
    assert Translator("ko").n("{n} seed", "{n} seeds", 3) == "시드 3개"


def test_a_name_is_put_in_as_it_is() -> None:
    t = Translator("zh")
    assert "{path} {0}" in t("{metric} is {value}", metric="{path} {0}", value="1")
    assert t("no such message, {name}", name="{x}") == "no such message, {x}"


def test_an_unknown_language_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'de'.*ko \(한국어\)"):
        Translator("de")
