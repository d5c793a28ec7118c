"""What is printed: every character, on every terminal."""

import io
import sys


def show_everything() -> None:
    r"""Lets an output without UTF-8 show other characters as `\xe9` instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        # A notebook or a test may have put another stream there.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
