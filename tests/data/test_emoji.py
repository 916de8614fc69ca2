"""The bundled things: unique, drawn twice, and the two drawings of a thing alike."""

from __future__ import annotations

import numpy as np
import pytest

from ablab.data.emoji import SIDE, VENDORS, concepts, drawings


def test_names_and_codes_are_unique_and_both_languages_are_there():
    things = concepts()
    assert len(things) == 1391
    assert len({thing.code for thing in things}) == len({thing.name for thing in things}) == len(things)
    korean = sum(any("\uac00" <= letter <= "\ud7a3" for letter in thing.name_ko) for thing in things)
    assert korean > 0.95 * len(things)
    apple = next(thing for thing in things if thing.name == "red apple")
    assert (apple.name_ko, apple.group, apple.lemma) == ("빨간 사과", "food-drink", "apple")
    assert apple.gloss is not None and "fruit" in apple.gloss


def test_groups_choose():
    assert {thing.group for thing in concepts(["food-drink"])} == {"food-drink"}
    assert concepts(["nothing"]) == ()


def test_a_drawing_is_nearest_to_the_other_vendors_drawing_of_the_same_thing_far_more_often_than_by_chance():
    codes = [thing.code for thing in concepts(["food-drink"])]
    pixels = {}
    for vendor in VENDORS:
        images = drawings(vendor, codes)
        assert all(image.size == (SIDE, SIDE) and image.mode == "RGB" for image in images.values())
        rows = np.stack([np.asarray(images[code], dtype=np.float32).ravel() for code in codes])
        rows -= rows.mean(axis=0)
        pixels[vendor] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    nearest = (pixels["google"] @ pixels["twitter"].T).argmax(axis=1)
    assert (nearest == np.arange(len(codes))).mean() > 20 / len(codes)


def test_an_unknown_drawing_is_named():
    with pytest.raises(KeyError, match="no-such"):
        drawings("google", ["no-such"])
