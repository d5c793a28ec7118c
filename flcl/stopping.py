"""Stopping on SIGTERM, the signal by which clusters announce that they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class StoppedError(BaseException):
    """The run was asked to stop. All its work is on disk; the same command continues it.

    It is no `Exception`: a reader that takes every error for a damaged file must not catch it.
    """


class SigTerm:
    """Turns SIGTERM into a `StoppedError`: at once, or inside `held` when `check` is called."""

    def __init__(self):
        self.received = False
        self._held = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block the signal only sets `received`; the code reads it when it is ready."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def check(self) -> None:
        """Raises `StoppedError` if the signal has arrived."""
        if self.received:
            raise StoppedError("stopped by SIGTERM")

    def __call__(self, *_) -> None:
        self.received = True
        if not self._held:
            self.check()


@contextlib.contextmanager
def on_sigterm(enabled: bool = True) -> Iterator[SigTerm]:
    """Handles SIGTERM inside the block. Python allows this in the main thread only.

    enabled: False if another library handles the signal.
    """
    handler = SigTerm()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield handler
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield handler
    finally:
        signal.signal(signal.SIGTERM, before)
