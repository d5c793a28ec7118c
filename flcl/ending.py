"""How a program ends: its exit code, and one line on stderr for what it raised."""

import os
import sys
import traceback
from collections.abc import Callable

from flcl import files, hints, stopping
from flcl.shown import shown


def code_of(work: Callable[[], int]) -> int:
    """The exit code of `work`, after one line on stderr for what it raised.

    2 for bad input, 1 for a run that had to stop, 75 after SIGTERM, 130 after Ctrl-C: see
    `cli.main`. What is a defect of flcl is raised.
    """
    try:
        code = work()
        sys.stdout.flush()  # here, where an error is one line, and not while Python ends
        return code
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has closed it
        _close_stdout()
        return 1
    except OSError as error:
        if error.filename is None and _is_full(sys.stdout):
            error.filename = "standard output"
        if files.may_pass(error, "") is not None:
            error = OSError(f"{error}; when this is mended, run the same command again")
        return _complain(error, 2)
    except ValueError as error:
        return _complain(error, 2)
    except FloatingPointError as error:
        return _complain(error, 1)
    except MemoryError as error:
        return _complain(MemoryError(f"this machine is out of memory: {error}".rstrip(": ")), 1)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        hint = (
            "lower phase1.batch_size and phase2.batch_size, judge.batch_size or sample.chunk; for "
            "a classifier train.batch_size or train.eval_batch_size, or set model.remat=blocks"
        )
        return _complain(RuntimeError(f"the device is out of memory: {hint}"), 1)
    except stopping.StoppedError as error:
        print(f"{error}: run the same command to continue", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command to continue", file=sys.stderr)
        return stopping.INTERRUPTED


def _is_full(stdout) -> bool:
    """Whether standard output cannot be written; Python shall not try it again at its end."""
    try:
        print(file=stdout, flush=True)  # what could not be written before is forgotten
    except OSError:
        _close_stdout()
        return True
    return False


def _close_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_stopping() -> None:
    """Says what a first Ctrl-C does, and a second one."""
    print("\nstopping; press Ctrl-C again to stop at once", file=sys.stderr, flush=True)


def end_at_once() -> None:
    """Ends the process as `kill` does: a save is complete or it does not count."""
    if sys.stdout.isatty():
        print("\x1b[?25h", end="", flush=True)  # a progress bar hides the cursor
    print("interrupted: run the same command to continue", file=sys.stderr, flush=True)
    os._exit(stopping.INTERRUPTED)


def _complain(error: Exception, code: int) -> int:
    if os.environ.get("FLCL_TRACEBACK"):
        traceback.print_exception(error)
        return code
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = hints.brief(lines[0], most=400) if lines else type(error).__name__
    if len(lines) > 1 or not lines:
        text += " (FLCL_TRACEBACK=1 shows the rest)"
    print(f"error{_which_process()}: {shown(text)}", file=sys.stderr)
    return code


def _which_process() -> str:
    """The words that name this process, if there are several."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized() or jax.process_count() == 1:
        return ""
    return f" in process {jax.process_index()} of {jax.process_count()}"
