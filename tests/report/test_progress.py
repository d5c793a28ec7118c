import io

import pytest

from flcl.report.console import Console
from flcl.report.progress import ProgressBar


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=200, force_terminal=False)


def live_console() -> Console:
    return Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)


def lines(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()


def test_plain_lines_come_every_ten_seconds_and_at_the_end(clock):
    console = plain_console()
    bar = ProgressBar("task 2", 100, console=console, clock=clock)
    for done in range(1, 101):
        clock.now += 0.25  # 4 per second, 25 s in all
        bar(done, loss=1 / done)
    assert lines(console) == [
        "task 2  40/100  4/s  0:00:15 left  loss 0.025",
        "task 2  80/100  4/s  0:00:05 left  loss 0.0125",
        "task 2  100/100  4/s  loss 0.01",
    ]


def test_rate_counts_neither_compilation_nor_steps_before_a_resume(clock):
    console = plain_console()
    bar = ProgressBar("task 1", 1000, console=console, clock=clock)
    clock.now += 60  # compilation
    bar(901)
    for done in range(902, 1001):
        clock.now += 0.5
        bar(done)
    assert lines(console)[0] == "task 1  901/1000"
    assert lines(console)[1].startswith("task 1  921/1000  2/s  0:00:4")
    assert lines(console)[-1] == "task 1  1000/1000  2/s"


def test_slow_items_show_seconds_each_and_keep_the_last_loss(clock):
    console = plain_console()
    bar = ProgressBar("judge", 5, console=console, clock=clock)
    bar(1, loss=2.5)
    clock.now += 4000
    bar(2)
    assert lines(console) == ["judge  2/5  4e+03 s each  3:20:00 left  loss 2.5"]


@pytest.mark.parametrize("make_console", [plain_console, live_console])
@pytest.mark.parametrize(("enabled", "total"), [(False, 10), (True, 0)])
def test_silence(make_console, enabled, total, clock):
    console = make_console()
    bar = ProgressBar("x", total, enabled=enabled, console=console, clock=clock)
    for done in range(12):
        clock.now += 100
        bar(done, loss=1.0)
    bar.close()
    assert console.file.getvalue() == ""


def test_terminal_shows_count_loss_and_gives_the_cursor_back():
    console = live_console()
    bar = ProgressBar("task 3", 4, console=console)
    for done in (2, 3, 4):
        bar(done, loss=0.125)
    bar(4)  # a late call after the end is harmless
    shown = console.file.getvalue()
    assert "task 3" in shown and "4/4" in shown and "loss 0.125" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # hidden once, shown once


def test_a_bar_closed_early_gives_the_cursor_back():
    console = live_console()
    bar = ProgressBar("task 3", 4, console=console)
    bar(1)
    bar.close()
    bar.close()
    assert "\x1b[?25h" in console.file.getvalue() and "1/4" in console.file.getvalue()
