"""Stopping: SIGTERM, by which clusters announce that they take a machine away, and Ctrl-C.

Python runs a signal handler in the main thread between two instructions, so the exception that it
raises can appear anywhere. `held` delays it where a library would be left in the middle of a call.
"""

import atexit
import contextlib
import functools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

STOPPED = 75
"""Exit code after SIGTERM (EX_TEMPFAIL): everything is saved, run the same command again."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in a shell: programs that start a run again do not do so after it."""

_TWICE = 0.2  # seconds; a program between us and the terminal may repeat a Ctrl-C at once
_SLOW = 0.5  # seconds after which a person who pressed Ctrl-C wants to know what happens


class StoppedError(SystemExit):
    """The run was asked to stop. All its work is on disk; the same command continues it.

    It is no `Exception`: a reader that takes every error for a damaged file must not catch it. As a
    `SystemExit`, it passes through event loops, and a program that does not catch it ends without a
    traceback, with the exit code `code`: `STOPPED` after SIGTERM, `INTERRUPTED` after Ctrl-C.
    """

    def __init__(self, message: str = "stopped"):
        super().__init__(message)
        self.code = INTERRUPTED if _signals.received == signal.SIGINT else STOPPED


class _Signals:
    """What has arrived; one object, because a process has one handler of a signal.

    Attributes:
      received: the first signal, or None.
      holds: the number of blocks in which no exception may appear.
      installed: whether this module handles signals now.
      several: whether another library handles SIGTERM, and all processes of the run stop together.
    """

    def __init__(self):
        self.holds, self.installed, self.several = 0, False, False
        self._sending = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Nothing has arrived yet."""
        self.received: signal.Signals | None = None
        self._raised = False
        self._interrupted: float | None = None

    def __call__(self, number: int, frame) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            if self._interrupted is None:
                self._interrupted = now
            elif now - self._interrupted > _TWICE:
                raise KeyboardInterrupt  # the second Ctrl-C
        self.received = self.received or signal.Signals(number)
        if self.several:
            os.kill(os.getpid(), signal.SIGTERM)  # the other processes learn it from that library
        elif not self.holds and not self._raised and not _in_hook(frame):
            self.check()

    def check(self) -> None:
        """Raises `StoppedError` if a signal has arrived."""
        if self.received is not None and not self.several:
            self._raised = True  # once: the work that follows a stop is not interrupted
            name = "Ctrl-C" if self.received == signal.SIGINT else self.received.name
            raise StoppedError(f"stopped by {name}")

    def again(self) -> None:
        """Raises once more, a moment later; for an exception that Python has thrown away."""
        self._raised = False
        threading.Thread(target=self._repeat, daemon=True).start()

    def _repeat(self) -> None:
        """Sends the signal until the main thread has taken it: a busy machine may take long."""
        while not self._raised:
            time.sleep(0.01)
            with self._sending:
                if not self.installed:
                    return  # another handler, or none, would get the signal
                signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    def uninstall(self) -> None:
        """From here on no signal is sent, and the handlers may change."""
        with self._sending:
            self.installed = False
        self.forget()


def _in_hook(frame) -> bool:
    """Whether Python is reporting a lost exception: what is raised there is lost, too."""
    while frame is not None and frame.f_code is not _raise_again.__code__:
        frame = frame.f_back
    return frame is not None


def _raise_again(show: Callable, lost) -> None:
    """As `sys.unraisablehook`: a stop comes again, and `show` reports all else."""
    if _signals.installed and isinstance(lost.exc_value, StoppedError):
        _signals.again()
    else:
        show(lost)


_signals = _Signals()


def received() -> bool:
    """Whether a signal has asked this process to stop."""
    return _signals.received is not None


def check() -> None:
    """Raises `StoppedError` if a signal has arrived, also inside `held`.

    It does nothing in a run of several processes, where all must stop at the same place.
    """
    _signals.check()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Inside the block a signal is only noted. The code asks `received`, or calls `check`."""
    _signals.holds += 1
    try:
        yield
    finally:
        _signals.holds -= 1


@contextlib.contextmanager
def on_signals(several: bool = False) -> Iterator[None]:
    """Inside the block SIGTERM and Ctrl-C raise `StoppedError`, a second Ctrl-C KeyboardInterrupt.

    several: True in a run of several processes, where JAX handles SIGTERM. Then nothing is raised:
    the loops ask `received`, and Ctrl-C is passed on as SIGTERM. Blocks may be nested: the outer
    one handles the signals. Python allows all this in the main thread only; in any other thread
    the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, _signals.several = _signals.several, several
    try:
        if _signals.installed:
            yield
        else:
            with _installed([signal.SIGINT] if several else [signal.SIGINT, signal.SIGTERM]):
                yield
    finally:
        _signals.several = outer


@contextlib.contextmanager
def _installed(numbers: list[signal.Signals]) -> Iterator[None]:
    _signals.installed = True
    before = {number: signal.signal(number, _signals) for number in numbers}
    # Python throws away what is raised inside a destructor or a callback of the collector.
    show = sys.unraisablehook
    sys.unraisablehook = hook = functools.partial(_raise_again, show)
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = show
        _signals.uninstall()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def watched(slow: Callable[[], None], second: Callable[[], None]) -> Iterator[None]:
    """Calls `slow` if the block goes on after Ctrl-C, and `second` at once after another Ctrl-C.

    Both are called in a thread of their own: a handler has to wait until the main thread leaves the
    compiler, or a read from a disk that does not answer. `second` should end the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        read, write = os.pipe()
    except OSError:  # too many open files: then a second Ctrl-C waits for the main thread
        yield
        return
    os.set_blocking(write, False)  # as `signal.set_wakeup_fd` demands
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(read, slow, second), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write)
        watcher.join()
        os.close(read)


def _watch(read: int, slow: Callable[[], None], second: Callable[[], None]) -> None:
    """Reads the numbers of signals until the pipe is closed."""
    first = None
    while numbers := os.read(read, 64):
        if signal.SIGINT not in numbers:
            continue
        if first is None:
            first = time.monotonic()
            if not select.select([read], [], [], _SLOW)[0]:
                slow()
        elif time.monotonic() - first > _TWICE:
            second()


def end_at_once() -> None:
    """From here on a signal ends the process without a traceback, until `on_signals` takes over.

    For the first moments of a program, before it has begun anything. Call it before libraries are
    imported.
    """
    for number, code in ((signal.SIGTERM, STOPPED), (signal.SIGINT, INTERRUPTED)):
        signal.signal(number, lambda *_, code=code: os._exit(code))
    # What is registered first is called last. Then nothing is left that could wait for long.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def let_end() -> None:
    """For the last moments of a program: SIGTERM does not change its exit code any more.

    Python gives up its handlers before it ends, but it leaves a signal that is ignored as it is. A
    library may wait for a thread for long, so Ctrl-C is not ignored yet.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
