"""Stopping on SIGTERM, which is how clusters announce that a machine is taken away."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class StoppedError(Exception):
    """The run was asked to stop and all it has done is on disk: the same command continues it."""


class SigTerm:
    """Turns SIGTERM into a `StoppedError`: at once, or, while something is held, when asked."""

    def __init__(self):
        self.received = False
        self._held = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block the signal is only noted: the code looks at `received` where it fits."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def check(self) -> None:
        """Raises `StoppedError` when the signal has come."""
        if self.received:
            raise StoppedError("stopped by SIGTERM")

    def __call__(self, *_) -> None:
        self.received = True
        if not self._held:
            self.check()


@contextlib.contextmanager
def on_sigterm(enabled: bool = True) -> Iterator[SigTerm]:
    """Handles SIGTERM inside the block, where Python allows it: in the main thread.

    enabled: False where another library listens for it.
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
