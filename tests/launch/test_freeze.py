"""What a launch leaves on disk before anything runs."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from typing import Any

import pytest
from lab_of_tests import Lab, experiment, stage

from ablab.contract.failure import DiskFullError
from ablab.launch import freeze
from ablab.store.claims import is_alive, read_holder


def launch_folder(lab: Lab, launch: str) -> Any:
    folder = lab.store.launch_folder(launch)
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_a_launch_can_be_understood_from_its_folder(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ablab", "run", "my study.yaml"])
    lab.ask(experiment("A", stage("prepare"), stage("train", "prepare")))
    assert lab.study is not None
    lab.study = dataclasses.replace(lab.study, overrides=("model.layers=2",))
    summary = lab.launch(seeds=(1,))
    found = launch_folder(lab, summary.launch)
    folder = lab.store.launch_folder(summary.launch)
    assert (folder / "study.yaml").read_text() == lab.study.text
    record = found["launch"]
    assert record["command"] == shlex.join(["ablab", "run", "my study.yaml"])
    assert (record["study"], record["profile"], record["overrides"]) == ("fake", "full", ["model.layers=2"])
    assert record["options"]["seeds"] == [1]
    assert record["new"] == [lab.run("A", "prepare").name, lab.run("A").name]
    assert {"commit", "state"} & set(found["git"]) and "libraries" in found["environment"]
    rows = {row["name"]: row for row in found["plan"]["runs"]}
    assert rows[lab.run("A").name]["inputs"] == [["prepare", lab.run("A", "prepare").name, "last"]]


def test_the_launcher_claims_its_folder_while_it_lives(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train")))
    seen = []

    def look(_: Any) -> None:
        for folder in lab.store.launches():
            holder = read_holder(folder / "launcher.json")
            seen.append(holder is not None and is_alive(holder))

    notices, lab._hear = lab._hear, lambda notice: (notices(notice), look(notice))  # type: ignore[method-assign,assignment]
    summary = lab.launch()
    assert True in seen
    assert read_holder(lab.store.launch_folder(summary.launch) / "launcher.json") is None


def test_new_reused_and_superseded_runs_are_told_apart(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", tag="a")), experiment("B", stage("train", tag="b")))
    lab.launch()
    old = lab.run("B").name
    lab.ask(experiment("A", stage("train", tag="a")), experiment("B", stage("train", tag="changed")))
    summary = lab.launch()
    record = launch_folder(lab, summary.launch)["launch"]
    assert record["reused"] == [lab.run("A").name]
    assert record["new"] == [lab.run("B").name]
    assert record["superseded"] == [old]
    assert "1 runs to do, 1 reused, 1 superseded" in lab.texts() and f"superseded: {old}" in lab.texts()
    assert lab.store.run(old).done


def test_a_part_of_the_study_supersedes_nothing(lab: Lab) -> None:
    lab.ask(experiment("A", stage("train", tag="a")), experiment("B", stage("train", tag="b")))
    lab.launch()
    summary = lab.launch(only=("A",))
    assert launch_folder(lab, summary.launch)["launch"]["superseded"] == []


def test_what_would_not_fit_does_not_start(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = lab.ask(experiment("A", stage("train")))
    plan.bytes_left = 5_000_000_000
    monkeypatch.setattr(freeze, "disk_free", lambda _: 4_000_000_000)
    with pytest.raises(DiskFullError, match=r"5,000,000,000 bytes.*4,000,000,000 are free"):
        lab.launch(plan)
    assert lab.store.launches() == []
    monkeypatch.setattr(freeze, "disk_free", lambda _: 6_000_000_000)
    assert lab.launch(plan).exit_code == 0
