"""`notify:` is typed like the rest of a study, and its addresses are stored and shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablab.study.loading import StudyError, load
from ablab.study.webhooks import HIDDEN, addresses, without_addresses

STUDY = Path(__file__).parents[2] / "studies" / "gpt-oelm.yaml"
SECRET = "https://hooks.example.org/services/T0/B0/hush"
OTHER = "http://hooks.example.org/other/hush-hush"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    text = STUDY.read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        text.replace("accept: {}", f"accept: {{}}\nnotify:\n  - {{url: '{SECRET}', kind: slack, on: [failed]}}")
        .replace("  smoke:\n", f"  smoke:\n    notify: [{{url: {OTHER}}}, {{url_env: HOOK}}]\n")
    )  # fmt: skip
    return mine


def test_a_profile_may_tell_others(path: Path) -> None:
    laptop, smoke = load(path, profile="laptop"), load(path, profile="smoke")
    assert [(target.url, target.kind, target.on) for target in laptop.notify] == [(SECRET, "slack", ("failed",))]
    assert [(target.url, target.url_env) for target in smoke.notify] == [(OTHER, None), (None, "HOOK")]
    assert load(path, profile="laptop", overrides=("notify=[]",)).notify == ()


@pytest.mark.parametrize("profile", ["laptop", "smoke"])
def test_no_address_is_in_the_text_the_overrides_or_any_print_of_a_study(path: Path, profile: str) -> None:
    third = "https://third.example.org/key"
    study = load(path, profile=profile, overrides=(f"notify=[{{url: '{third}'}}]",))
    for secret in (SECRET, OTHER, third):
        assert secret not in study.text
        assert secret not in repr(study)
        assert secret not in "".join(study.overrides)
    assert study.text.count(HIDDEN) == 2


def test_a_text_without_its_addresses_still_loads(path: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored.yaml"
    stored.write_text(load(path, profile="smoke").text)
    assert [target.url for target in load(stored, profile="smoke").notify] == [HIDDEN, None]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{kind: slack}", "url_env"),
        ("{url: 'https://a.b/c', url_env: HOOK}", "either url_env"),
        ("{url: 'ftp://a.b'}", r"notify\[0\]\.url"),
        ("{url_env: 'https://a.b/c'}", r"notify\[0\]\.url_env"),
        ("{url_env: HOOK, on: [finish]}", "did you mean finished"),
        ("{url_env: HOOK, on: []}", "at least 1"),
        ("{ulr_env: HOOK}", "did you mean url_env"),
    ],
)
def test_a_mistake_is_told(given: str, says: str) -> None:
    with pytest.raises(StudyError, match=says):
        load(STUDY, profile="smoke", overrides=(f"notify=[{given}]",))


def test_odd_documents_have_no_addresses() -> None:
    assert addresses({"notify": 3, "profiles": {"a": None, "b": {"notify": [None, {"url": 5}]}}}) == ()
    assert without_addresses("a https://x/yz b", ("https://x/yz", "https://x")) == f"a {HIDDEN} b"
