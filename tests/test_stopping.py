"""SIGTERM and Ctrl-C become an exception: at once, or where a held block allows it."""

import ast
import asyncio
import contextlib
import errno
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from flcl import stopping
from flcl.stopping import StoppedError

CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


def ask(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", CODES)
def test_the_signal_raises_at_once(number):
    before = signal.getsignal(number)
    with stopping.on_signals(), pytest.raises(StoppedError) as raised:
        ask(number)
    assert raised.value.code == CODES[number]
    assert signal.getsignal(number) is before
    assert not stopping.received()  # nothing is left for the next run in this process


@pytest.mark.parametrize("number", CODES)
def test_a_held_signal_is_noted_and_raised_when_asked_for(number):
    with stopping.on_signals():
        stopping.check()  # nothing has come yet
        with stopping.held():
            with stopping.held():
                ask(number)
            assert stopping.received()
        with pytest.raises(StoppedError, match="stopped by (SIGTERM|Ctrl-C)") as raised:
            stopping.check()
    assert raised.value.code == CODES[number]


def test_blocks_may_be_nested():
    with stopping.on_signals():
        with pytest.raises(StoppedError), stopping.on_signals():
            ask()
        # It raises once: what is written after a stop is not interrupted by another SIGTERM.
        ask()


def test_a_second_ctrl_c_is_an_interrupt():
    with stopping.on_signals():
        with pytest.raises(StoppedError):
            ask(signal.SIGINT)
        ask(signal.SIGINT)  # at the same moment: a program in between repeats the first one
        time.sleep(0.25)
        with pytest.raises(KeyboardInterrupt):
            ask(signal.SIGINT)


def test_of_several_processes_none_stops_alone():
    """JAX handles SIGTERM there; it learns of Ctrl-C as of a SIGTERM."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(signal.SIGTERM))
    try:
        with stopping.on_signals(several=True):
            ask()
            assert seen == [signal.SIGTERM] and not stopping.received()
            ask(signal.SIGINT)
            assert seen == [signal.SIGTERM] * 2 and stopping.received()
            stopping.check()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_no_reader_and_no_event_loop_takes_a_stop_for_an_error():
    async def waits():
        asyncio.get_running_loop().call_soon(ask)
        await asyncio.sleep(10)

    with stopping.on_signals(), pytest.raises(StoppedError):
        try:
            asyncio.run(waits())
        except Exception:
            pytest.fail("caught as an error")


def test_nothing_in_the_library_catches_a_stop(root):
    """Only the command line does; everything else takes an `Exception` for an error.

    A user's config file may raise all there is, but a stop inside it passes.
    """
    caught = []
    for path in (root / "flcl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                kind = "everything" if node.type is None else ast.unparse(node.type)
                if re.search("everything|BaseException|SystemExit|Stopped|Interrupt|SIGNALS", kind):
                    caught.append(path.name)
    assert sorted(caught) == ["config_file.py"] * 4 + ["ending.py"] * 2


@pytest.mark.parametrize("place", ["nowhere", "start", "again"])
def test_a_stop_that_python_throws_away_comes_again(place, monkeypatch):
    """Also where a busy machine is slow to begin a thread, or to leave the report of the loss."""
    slow = {"start": (threading.Thread, "start"), "again": (stopping._Signals, "again")}.get(place)
    if slow:
        real = getattr(*slow)

        def late(*arguments):
            real(*arguments)
            time.sleep(0.1)

        monkeypatch.setattr(*slow, late)

    class Watcher:
        def __del__(self):
            ask()

    with stopping.on_signals(), pytest.raises(StoppedError):
        watcher = Watcher()
        del watcher
        gc.collect()
        time.sleep(5)


def test_a_lost_stop_is_not_sent_to_another_handler(monkeypatch):
    """The run has ended before the stop comes again."""
    sent = []
    monkeypatch.setattr(signal, "pthread_kill", lambda *arguments: sent.append(arguments))
    with stopping.on_signals():
        with stopping._signals._sending:  # what is sent now waits
            stopping._signals.again()
            time.sleep(0.05)
            stopping._signals.installed = False
        time.sleep(0.05)
    assert sent == []


PROGRAM = """
import os, signal, sys, time
from flcl import cli

def program(arguments):
    print("begun", flush=True)
    {work}

sys.exit(cli.main(program, doc="", define=lambda values: None, argv=["program"]))
"""


@contextlib.contextmanager
def started(work: str):
    """A program that has begun to do `work`."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(work=work)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.3)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", CODES)
def test_a_program_that_is_stopped_says_so_in_one_line(number):
    with started("time.sleep(30)") as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == CODES[number]
    assert err.endswith(": run the same command to continue\n") and err.count("\n") == 1


def test_a_second_ctrl_c_ends_a_program_inside_a_long_call():
    # As in a compiler: compiled code that no signal interrupts, so no handler of Python can run.
    lock = "import ctypes; lock = ctypes.CDLL(None).pthread_mutex_lock"
    with started(f"{lock}; m = ctypes.create_string_buffer(64); lock(m); lock(m)") as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline() == "stopping; press Ctrl-C again to stop at once\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "interrupted: run the same command to continue\n"


def test_sigterm_does_not_change_the_code_of_a_program_that_has_ended():
    """Python gives up its handlers before it ends."""
    late = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGTERM)"
    program = PROGRAM.replace("argv=[", "argv=None and [").format(work=late)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_free_file_nobody_watches(monkeypatch):
    def full():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(stopping.os, "pipe", full)
    with stopping.watched(pytest.fail, pytest.fail):
        pass
    assert signal.set_wakeup_fd(-1) == -1
