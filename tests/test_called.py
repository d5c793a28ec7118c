"""Commands in texts are those that the user typed."""

import sys

import pytest

from flcl import called


@pytest.mark.parametrize(
    ("started", "command"),
    [
        ("launch/train.py", "python launch/sample.py"),
        ("/x/launch/train.py", "python launch/sample.py"),
        ("/x/flcl/__main__.py", "python -m flcl sample"),
        ("/x/bin/flcl", "flcl sample"),
        ("/x/bin/pytest", "flcl sample"),
        ("", "flcl sample"),
    ],
)
def test_the_way_in_which_the_process_was_started(started, command, monkeypatch):
    monkeypatch.setattr(sys, "argv", [started])
    assert called.program("sample") == command
    text = "Usage:\n  flcl sample --out=x\n\nSee `flcl sample`; flcl samples well."
    expected = f"Usage:\n  {command} --out=x\n\nSee `{command}`; flcl samples well."
    assert called.as_called(text) == expected
    monkeypatch.setattr(sys, "argv", [])
    assert called.program("sample") == "flcl sample"
