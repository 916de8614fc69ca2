"""Posting to a webhook over real HTTP: order, tries, patience, and an address that nobody gets to see."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from ablab.launch.webhook import Message, Outlet, Target, payload, post
from tests.launch.hook import Hook

HEAD = {"study": "s", "profile": "p"}


def outlet(url: str, said: list[str], *, kind: Any = "json", **options: Any) -> Outlet:
    target = Target(name="notify[0]", url=url, kind=kind, on=("finished", "failed", "verdict"))
    return Outlet(target, head=HEAD, say=said.append, **{"pause": 0.01, **options})


def failed(number: int) -> Message:
    return Message(event="failed", text=f"run {number} failed", detail={"run": f"r{number}"})


def test_messages_come_whole_and_in_order(hook: Hook) -> None:
    said: list[str] = []
    mine = outlet(hook.url, said)
    mine.put(failed(1))
    mine.put(Message(event="finished", text="over", detail={"counts": {"done": 3}}))
    assert mine.close(time.monotonic() + 10) == 0
    first, last = hook.bodies()
    assert (first["event"], first["study"], first["profile"], first["text"]) == ("failed", "s", "p", "run 1 failed")
    assert first["items"] == [{"text": "run 1 failed", "run": "r1"}]
    assert (last["event"], last["items"][0]["counts"]) == ("finished", {"done": 3})
    assert said == []
    assert hook.types == ["application/json; charset=utf-8"] * 2


def test_slack_gets_one_text_in_which_names_are_text() -> None:
    target = Target(name="n", url="http://x/y", kind="slack", on=("failed",))
    found = payload(target, [Message(event="failed", text="<script> & <@U123> s/p")], HEAD)
    assert found == {"text": "s/p: &lt;script&gt; &amp; &lt;@U123&gt; s/p"}


def test_secrets_in_a_message_are_hidden() -> None:
    target = Target(name="n", url="http://x/y", kind="json", on=("failed",))
    token = "hf_" + "a1" * 15
    assert token not in json.dumps(payload(target, [Message(event="failed", text=f"token {token}")], HEAD))


def test_what_comes_while_a_post_is_under_way_is_gathered(hook: Hook) -> None:
    hook.hold.clear()
    mine = outlet(hook.url, [])
    mine.put(failed(0))
    hook.wait_for(1)
    for number in range(1, 41):
        mine.put(failed(number))
    hook.hold.set()
    assert mine.close(time.monotonic() + 10) == 0
    _, gathered = hook.bodies()
    assert len(gathered["items"]) == 40
    assert gathered["text"].splitlines()[-1] == "... and 20 more"


@pytest.mark.parametrize("answers", [[500, 503, 200], [429, 200], ["reset", 200]])
def test_a_passing_failure_is_tried_again(hook: Hook, answers: list[int | str]) -> None:
    hook.answers = list(answers)
    said: list[str] = []
    mine = outlet(hook.url, said)
    mine.put(failed(1))
    assert mine.close(time.monotonic() + 10) == 0
    assert len(hook.bodies()) == len(answers)
    assert said == []


@pytest.mark.parametrize("answer", [400, 403, 404, 410, 302])
def test_a_lasting_failure_is_told_once_and_not_tried_again(hook: Hook, answer: int) -> None:
    hook.answers = [answer]
    said: list[str] = []
    mine = outlet(hook.url, said)
    mine.put(failed(1))
    mine.close(time.monotonic() + 10)
    assert said == [f"notify[0]: failed could not be posted: HTTP {answer}"]
    assert len(hook.bodies()) == 1


def test_it_gives_up_and_goes_on_with_the_next_message(hook: Hook) -> None:
    hook.answers = [500, 500, 500]
    said: list[str] = []
    mine = outlet(hook.url, said, tries=3, pause=0.001)
    mine.put(failed(1))
    hook.wait_for(3)
    mine.put(Message(event="finished", text="over"))
    assert mine.close(time.monotonic() + 10) == 0
    assert said == ["notify[0]: failed could not be posted: HTTP 500"]
    assert hook.bodies()[-1]["event"] == "finished"


def test_a_pause_asked_for_is_kept(hook: Hook) -> None:
    hook.answers, hook.retry_after = [429, 200], "0.3"
    mine = outlet(hook.url, [])
    began = time.monotonic()
    mine.put(failed(1))
    mine.close(began + 10)
    assert hook.times[1] - hook.times[0] >= 0.3


def nobody() -> str:
    """Return an address at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/hush"


def test_putting_never_waits_and_closing_waits_no_longer_than_it_may(hook: Hook) -> None:
    hook.hold.clear()
    mine = outlet(hook.url, [])
    began = time.monotonic()
    for number in range(200):
        mine.put(failed(number))
    assert time.monotonic() - began < 1.0
    assert mine.close(time.monotonic() + 0.2) > 0
    assert time.monotonic() - began < 5.0
    hook.hold.set()


@pytest.mark.parametrize("address", [nobody, lambda: "http://no.such.host.invalid/hush", lambda: "http://[::bad/hush"])
def test_an_address_nobody_answers_is_never_said(address: Callable[[], str]) -> None:
    said: list[str] = []
    url = address()
    mine = outlet(url, said, tries=2, pause=0.001)
    mine.put(failed(1))
    mine.close(time.monotonic() + 20)
    assert len(said) == 1
    assert "hush" not in said[0] and "host" not in said[0] and "127" not in said[0]
    assert "hush" not in repr(mine.target)


def test_when_the_launch_ends_no_pause_is_sat_out(hook: Hook) -> None:
    hook.answers = [500] * 9
    said: list[str] = []
    mine = outlet(hook.url, said, pause=30.0)
    mine.put(failed(1))
    hook.wait_for(1)
    began = time.monotonic()
    mine.close(began + 1.0)
    assert time.monotonic() - began < 5.0
    assert said == ["notify[0]: failed could not be posted: HTTP 500; the launch ended meanwhile"]


def test_a_redirect_is_not_followed(hook: Hook) -> None:
    hook.answers, hook.location = [307], hook.url
    assert post(hook.url, b"{}")[0] == "HTTP 307"
    assert len(hook.bodies()) == 1
