"""Suggestions and values in the text of errors."""

import pytest

from flcl import hints, settings
from flcl.settings import bridge

KEYS = [name for name, _ in bridge.keys(settings.RUNS["fmlora"])]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("train.lr", "train.learning_rate"),
        ("lr", "train.learning_rate"),
        ("model.lr", "train.learning_rate"),
        ("rank.lr", "rank.learning_rate"),
        ("train.hlr", "train.head_learning_rate"),
        ("train.bs", "train.batch_size"),
        ("train.batch", "train.batch_size"),
        ("train.epoch", "train.epochs"),
        ("tain.learning_rate", "train.learning_rate"),
        ("train.xyzzy", None),
        ("q", None),
        ("", None),
    ],
)
def test_abbreviations_and_slips_find_their_key(name, meant):
    assert hints.nearest(name, KEYS) == meant


def test_a_value_is_short_and_on_one_line():
    class Bad:
        def __repr__(self):
            raise KeyError

    assert hints.quoted("a\nb") == "'a\\nb'"
    assert hints.quoted(10**5000) == "a number of 16610 bits"
    assert hints.quoted(Bad()) == "a Bad"
    assert hints.brief(f"x={'9' * 999}: no\nmore").startswith("x=999")
    assert len(hints.brief(f"x={'9' * 999}: no\nmore")) < 100
    assert hints.brief("one\n two") == "one two"


def test_a_list_of_names_is_cut_at_a_comma():
    assert hints.shortened("ant, bee", 8) == "ant, bee"
    assert hints.shortened("ant, bee, cat", 10) == "ant, bee, ..."
    assert hints.shortened("a" * 20, 10) == "a" * 10 + ", ..."
