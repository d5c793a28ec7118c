"""A progress bar on a terminal, or plain lines elsewhere; it can be switched off."""

import atexit
import time
from collections.abc import Callable

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from flcl.report.console import Console
from flcl.shown import shown

PLAIN_SECONDS = 10.0
"""Seconds between two plain lines."""


class ProgressBar:
    """A progress bar: call it with the number of finished items; it closes itself at `total`.

    description: text before the bar, e.g. "task 2".
    total:       number of items; 0 = nothing is shown.
    enabled:     False (switched off, or not the first process) = nothing is shown.
    console:     the console to print on; None = standard output. If it is not a terminal, a plain
                 line is printed about every ten seconds and at the end.
    clock:       seconds, for tests.

    The rate is measured from the first call, so compilation and the steps before a resume do not
    count.
    """

    def __init__(
        self,
        description: str,
        total: int,
        *,
        enabled: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._view = None
        if enabled and total > 0:
            console = console or Console()
            view = _Live if console.is_terminal else _Plain
            self._view = view(shown(description), total, console, clock)
            # If a bar were never closed, the terminal would have no cursor.
            atexit.register(self.close)
        self._total = total

    def __call__(self, done: int, loss: float | None = None) -> None:
        """`done` items are finished; `loss` is shown until another one is given."""
        if self._view is not None:
            self._view.update(done, loss)
            if done >= self._total:
                self.close()

    def close(self) -> None:
        """Leaves the last state on screen and releases the terminal; may be called twice."""
        if self._view is not None:
            self._view.close()
            self._view = None
            atexit.unregister(self.close)


class _Live:
    def __init__(self, description: str, total: int, console: Console, clock):
        del clock  # rich has its own
        self._progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}", style="magenta"),
            console=console,
            refresh_per_second=4,
            expand=True,
        )
        self._task = self._progress.add_task(description, total=total, loss="")
        self._progress.start()
        self._started = False

    def update(self, done: int, loss: float | None) -> None:
        if not self._started:
            self._progress.reset(self._task, completed=done)
            self._started = True
        fields = {} if loss is None else {"loss": f"loss {loss:z.4g}"}
        self._progress.update(self._task, completed=done, **fields)

    def close(self) -> None:
        self._progress.stop()


class _RateColumn(ProgressColumn):
    """Items per second, or seconds per item if that is the larger number."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(_rate(speed) if speed else "-/s", style="cyan")


class _Plain:
    def __init__(self, description: str, total: int, console: Console, clock):
        self._description, self._total = description, total
        self._console, self._clock = console, clock
        self._printed = clock()
        self._first: tuple[float, int] | None = None
        self._loss = ""

    def update(self, done: int, loss: float | None) -> None:
        now = self._clock()
        if loss is not None:
            self._loss = f"  loss {loss:z.4g}"
        if self._first is None:
            self._first = (now, done)
        if done >= self._total or now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            self._print(now, done)

    def _print(self, now: float, done: int) -> None:
        since, first = self._first
        line = f"{self._description}  {done}/{self._total}"
        if done > first and now > since:
            speed = (done - first) / (now - since)
            left = "" if done >= self._total else f"  {_clock((self._total - done) / speed)} left"
            line += f"  {_rate(speed)}{left}"
        self._console.print(line + self._loss, highlight=False, soft_wrap=True)

    def close(self) -> None:
        pass


def _rate(speed: float) -> str:
    return f"{speed:.3g}/s" if speed >= 1 else f"{1 / speed:.3g} s each"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
