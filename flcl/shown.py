"""What people see: names from elsewhere without control characters, on every terminal."""

import io
import os
import sys
import unicodedata

# Persian and many Indian scripts need them inside words, and emoji are joined by them.
_JOINERS = "\u200c\u200d"


def shown(text: str) -> str:
    r"""`text` in one line, with every control character as its escape, such as `\x1b` or `\n`.

    A name from somebody else could otherwise move the cursor of a terminal, start a new line that
    looks like a message, or turn the direction of what follows it. Letters of every script stay as
    they are.

    >>> print(shown("kafe\x1b[2J"))
    kafe\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter) else _escape(letter) for letter in text)


def show_everything() -> None:
    r"""Lets an output without UTF-8 show other characters as `\xe9` instead of raising an error.

    An output that was closed before the program began (`>&-`) becomes one that shows nothing.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _nothing(number))
    for stream in (sys.stdout, sys.stderr):
        # A notebook or a test may have put another stream there.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _nothing(number: int) -> io.TextIOWrapper:
    """An output that is thrown away, with the number of a closed one if that is free."""
    file = os.open(os.devnull, os.O_WRONLY)
    try:
        os.fstat(number)
    except OSError:
        # Otherwise the next file would get the number, and what C++ prints would be written there.
        os.dup2(file, number)
    if file != number:
        os.close(file)
    return open(os.devnull, "w", encoding="utf-8")


def _is_harmless(letter: str) -> bool:
    # A wide or a no-break space is not "printable" for Python, but it only takes room.
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
