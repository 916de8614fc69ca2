"""What webhooks hear of a launch, and that a launch never notices them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablab.launch.launcher import launch
from ablab.launch.notify import Notifier, VerdictNews, listener, targets
from ablab.launch.options import LaunchSummary, Notice, Options
from ablab.launch.webhook import Target
from ablab.store.files import append_line
from ablab.study.schema import Notify
from ablab.study.webhooks import HIDDEN
from tests.launch.conftest import PROGRAM, Lab, Machine, experiment, stage
from tests.launch.hook import Hook


def target(url: str, **options: Any) -> Target:
    return Target(
        **{"name": "notify[0]", "url": url, "kind": "json", "on": ("finished", "failed", "verdict"), **options}
    )


def run(lab: Lab, notifier: Any) -> LaunchSummary:
    assert lab.study is not None
    return launch(
        lab.study, lab.plan(), lab.store, Options(poll=0.05, devices="cpu"), on_event=notifier, replan=lab.plan,
        machine=Machine(cores=2, program=PROGRAM),
    )  # fmt: skip


def line(comparison: str, **verdicts: str) -> dict[str, Any]:
    conditions = [{"point": 1.01, "low": 0.99, "high": 1.03, "n": 3}]
    variants = [{"experiment": name, "verdict": word, "conditions": conditions} for name, word in verdicts.items()]
    return {
        "comparison": comparison,
        "criterion": "ratio <= 1.05",
        "baseline": "base",
        "sensitive": None,
        "variants": variants,
    }


def test_a_launch_is_told_of_from_its_failures_to_its_end(lab: Lab, hook: Hook, tmp_path: Path) -> None:
    lab.ask(
        experiment("good", stage("prepare"), stage("train", "prepare")),
        experiment("bad", stage("prepare"), stage("train", "prepare", tag="x", fails={"1": "not-finite"})),
    )
    assert lab.study is not None
    said: list[str] = []
    notifier = Notifier(lab.study, [target(hook.url)], history=tmp_path / "verdicts.jsonl", say=said.append)
    summary = run(lab, notifier)
    append_line(tmp_path / "verdicts.jsonl", line("main", arm="met"))
    notifier.end()
    events = [body["event"] for body in hook.bodies()]
    assert events == ["failed", "verdict", "finished"]
    failure, verdict, end = hook.bodies()
    assert failure["text"].startswith("bad seed 1 train: failed")
    assert failure["items"][0]["run"] in summary.failed
    assert "arm MET 1.01 [0.99, 1.03] n = 3" in verdict["text"]
    counts = end["items"][0]["counts"]
    assert (counts["done"], counts["failed"]) == (len(summary.done), 1)
    assert said == []


def test_a_webhook_that_is_down_changes_nothing_about_a_launch(lab: Lab, hook: Hook, tmp_path: Path) -> None:
    lab.ask(experiment("bad", stage("prepare"), stage("train", "prepare", fails={"1": "not-finite"})))
    hook.answers = [500] * 50
    said: list[str] = []
    assert lab.study is not None
    notifier = Notifier(
        lab.study, [target(hook.url)], history=tmp_path / "v", say=said.append, pause=0.01, tries=2, patience=5
    )
    summary = run(lab, notifier)
    notifier.end()
    assert (len(summary.done), len(summary.failed)) == (1, 1)
    assert said == [f"notify[0]: {event} could not be posted: HTTP 500" for event in ("failed", "finished")]


def test_only_what_was_asked_for_is_told(hook: Hook, lab: Lab, tmp_path: Path) -> None:
    lab.ask(experiment("a", stage("prepare")))
    assert lab.study is not None
    wanted = [target(hook.url, on=("finished",)), target(hook.url, name="notify[1]", kind="slack", on=("failed",))]
    notifier = Notifier(lab.study, wanted, history=tmp_path / "v", say=print)
    notifier(Notice(kind="failed", text="a: failed: b", run="train-1"))
    notifier(Notice(kind="launch", text="1 done", detail={"summary": LaunchSummary(launch="l", done=("x",))}))
    notifier(Notice(kind="ended"))
    bodies = sorted(hook.bodies(), key=len)
    assert bodies[0] == {"text": "fake/full: a: failed: b"}
    assert bodies[1]["event"] == "finished"


def test_a_fault_of_its_own_is_said_and_not_raised(lab: Lab, tmp_path: Path) -> None:
    lab.ask(experiment("a", stage("prepare")))
    assert lab.study is not None
    said: list[str] = []
    notifier = Notifier(lab.study, [target("http://127.0.0.1:9/")], history=tmp_path, say=said.append)
    notifier._verdicts = None  # type: ignore[assignment]
    notifier(Notice(kind="tick"))
    assert said[0].startswith("notify: AttributeError")


def test_news_are_verdicts_that_were_decided_or_changed(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    append_line(path, line("old", arm="met"))
    news = VerdictNews(path, title="s/p")
    assert news.news() == []
    append_line(path, line("main", arm="undecided"))
    assert news.news() == []
    append_line(path, line("main", arm="not met"))
    append_line(path, line("main", arm="not met") | {"confidence": 0.9})
    append_line(path, line("old", arm="met") | {"date": "later"})
    assert [message.detail["comparison"] for message in news.news()] == ["main"]
    append_line(path, line("main", arm="undecided"))
    append_line(path, {**line("old", arm="met"), "sensitive": False})
    with path.open("a") as stream:
        stream.write("torn {")
    texts = [message.text for message in news.news()]
    assert "arm UNDECIDED" in texts[0]
    assert "not sensitive" in texts[1]
    assert news.news() == []


def test_an_address_comes_from_the_environment_or_a_file_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HOOK=http://from.file/x\nOTHER=http://other/y\n")
    wanted = [Notify(url_env="HOOK"), Notify(url_env="OTHER"), Notify(url_env="MISSING"), Notify(url_env="WORD"),
              Notify(url=HIDDEN), Notify(url="https://here/z")]  # fmt: skip
    found, missing = targets(
        wanted, folders=[tmp_path], environment={"HOOK": " http://from.shell/x\n", "WORD": "hello"}
    )
    assert {t.name: t.url for t in found} == {
        "notify[0]": "http://from.shell/x", "notify[1]": "http://other/y", "notify[5]": "https://here/z",
    }  # fmt: skip
    assert len(missing) == 3
    assert "MISSING is not set" in missing[0]
    assert not any("hello" in sentence or "http:" in sentence for sentence in missing)


def test_a_study_without_webhooks_is_listened_to_by_nobody(lab: Lab, tmp_path: Path) -> None:
    lab.ask(experiment("a", stage("prepare")))
    assert lab.study is not None
    assert listener(lab.study, history=tmp_path / "v", say=pytest.fail) is None
