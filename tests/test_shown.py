"""Names with control characters are text: they do nothing to a terminal."""

import doctest

import pytest

from flcl import shown as module
from flcl.shown import shown


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "cat"),
        ("\x1b[2Jcat", r"\x1b[2Jcat"),  # clears a terminal
        ("cat\x9b31m", r"cat\x9b31m"),  # the same command in one byte
        ("cat\nerror: all is lost", r"cat\nerror: all is lost"),
        ("cat\r\t\0\x07\x08\x7f", r"cat\r\t\x00\x07\x08\x7f"),
        ("cat\u2028dog\u2029\u0085", r"cat\u2028dog\u2029\x85"),  # other ends of a line
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),  # turn the direction of writing
        ("\u200bcat\ufeff\u00ad", r"\u200bcat\ufeff\xad"),  # cannot be seen
        ("caf\udce9", r"caf\udce9"),  # a file name that is no UTF-8
        ("\U000e0041", r"\U000e0041"),
        # Letters, spaces and joiners of every script stay.
        ("Käse 猫 кот دب", "Käse 猫 кот دب"),
        ("1\u00a0000\u3000m", "1\u00a0000\u3000m"),
        ("क्\u200dष क\u200cष", "क्\u200dष क\u200cष"),
    ],
)
def test_control_characters_are_escaped_and_letters_are_not(name, expected):
    assert shown(name) == expected
    assert shown(shown(name)) == expected
    expected.encode()


def test_the_example():
    assert doctest.testmod(module).failed == 0
