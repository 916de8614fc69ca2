"""Drawn figures: valid files of each format, names as text, equal figures equal files."""

from __future__ import annotations

import sys
from xml.etree import ElementTree

import pytest

from ablab.contract.failure import ConfigError
from ablab.report.figures import Arm, Curves, Forest, Trace
from ablab.report.plotting import Format, draw

HOSTILE = "$\\frac{1}{$ <script>alert(1)</script> & 한국어"


def curves(**options: object) -> Curves:
    traces = tuple(
        Trace(arm=f"{HOSTILE}{arm}", seed=seed, run="r", status="done" if seed < 3 else "running", steps=(1, 2, 3),
              values=(3.0 + arm, 2.0 + seed, 1.0))
        for arm in range(9)
        for seed in (1, 2, 3)
    )  # fmt: skip
    values: dict[str, object] = {"kind": "curves", "name": "n", "title": HOSTILE, "traces": traces, "y_label": HOSTILE}
    return Curves(**{**values, "better": "lower", **options})  # type: ignore[arg-type]


def forest(**options: object) -> Forest:
    arms = tuple(
        Arm(name=f"{HOSTILE}{n}", values=((1, 1.0), (2, 1.1 + n)), low=low, point=1.05, high=high, verdict="met")
        for n, (low, high) in enumerate(((0.9, 1.2), (1e-9, 1e9), (None, None), (-5.0, 7.0)))
    )
    values: dict[str, object] = {"kind": "points", "name": "n", "title": HOSTILE, "arms": arms, "x_label": "ratio"}
    return Forest(**{**values, "margin": 1.05, "neutral": 1.0, "log": True, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(("form", "begin"), [("pdf", b"%PDF-"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_every_format_is_drawn_whatever_the_names(form: Format, begin: bytes) -> None:
    for figure in (curves(log=True, rule=1.05, rule_label=HOSTILE, neutral=1.0), forest()):
        data = draw(figure, form)
        assert data.startswith(begin)
        assert data == draw(figure, form)


def test_an_svg_is_well_formed_and_holds_no_script() -> None:
    tree = ElementTree.fromstring(draw(curves(), "svg"))
    assert not [node for node in tree.iter() if node.tag.endswith("script")]


@pytest.mark.parametrize("log", [True, False])
def test_odd_numbers_are_drawn_all_the_same(log: bool) -> None:
    odd = Trace(arm="a", seed=1, run="r", status="done", steps=(1, 2, 3), values=(float("nan"), -1.0, float("inf")))
    assert draw(curves(traces=(odd,), log=log), "svg")
    same = Arm(name="a", values=((None, 1.0),), low=1.0, point=1.0, high=1.0, verdict="met")
    assert draw(forest(arms=(same,), margin=None, neutral=None, log=log), "svg")


def test_without_matplotlib_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"ablab\[plots\]"):
        draw(forest(), "pdf")
