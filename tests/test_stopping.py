"""SIGTERM becomes an exception: at once, or where a held block allows it."""

import os
import signal

import pytest

from flcl.stopping import StoppedError, on_sigterm


def ask():
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_signal_raises_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with on_sigterm() as sigterm, pytest.raises(StoppedError):
        ask()
    assert sigterm.received and signal.getsignal(signal.SIGTERM) is before


def test_a_held_signal_is_noted_and_raised_when_asked_for():
    with on_sigterm() as sigterm:
        sigterm.check()  # nothing has come yet
        with sigterm.held():
            ask()
        assert sigterm.received
        with pytest.raises(StoppedError, match="stopped by SIGTERM"):
            sigterm.check()


def test_the_signal_is_left_to_others():
    before = signal.getsignal(signal.SIGTERM)
    with on_sigterm(enabled=False):
        assert signal.getsignal(signal.SIGTERM) is before
