"""A run that is killed, stopped or hit by errors of its disk, and then started again."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time

from campaign import moments
from campaign.trial import EQUAL, ROOT, Done, Fault, Killed, Trial, one_line, quiet, succeeded

_STARTS = ("nothing", "inside 2", "inside 3", "inside 3", "finished")
_ENDED = {signal.SIGTERM: 75, signal.SIGINT: 130}


def _chosen(trial: Trial) -> tuple[str, str]:
    """A method and where its run starts."""
    method, start = trial.pick(("funlora", "fmlora")), trial.pick(_STARTS)
    trial.note(f"{method} from {start!r}")
    return method, start


def _moment(trial: Trial, method: str, start: str) -> tuple[str, int]:
    """A function and a number of a call: first a place, so that rare functions come, too."""
    places = trial.prepared.counts(method, start)["calls"]
    place = trial.pick(name for name in places if places[name])
    function = trial.pick(sorted(places[place]))
    call = trial.random.randint(1, places[place][function])
    trial.note(f"{place}: call {call} of {function}")
    return function, call


def _again(trial: Trial, method: str) -> str:
    """The same command: it must end with the undisturbed result."""
    succeeded(trial.prepared.train(method, trial.workdir))
    trial.prepared.compare(method, trial.workdir)
    return EQUAL


def _stored(trial: Trial) -> set[str]:
    tasks = trial.workdir / "checkpoints" / "tasks"
    return {path.name for path in tasks.glob("[0-9]*") if path.name.isdigit()}


def kill(trial: Trial) -> str:
    """Dies at a moment: half of the time the process, half of the time by an exception."""
    method, start = _chosen(trial)
    function, call = _moment(trial, method, start)
    real = trial.random.random() < 0.4
    trial.note("the process dies" if real else "an exception that nobody catches")
    if trial.phase == 1:
        trial.prepared.copy(method, start, trial.workdir)
        if real:
            trial.dying()
        act = moments.die if real else moments.end
        with contextlib.suppress(Killed), moments.at(function, call, act):
            # What it prints is not looked at: a finaliser may show the exception and go on.
            trial.prepared.train(method, trial.workdir)
    return _again(trial, method)


def stop(trial: Trial) -> str:
    """A signal arrives at a moment: one line and its code, nothing lost, and the rest is equal."""
    method, start = _chosen(trial)
    function, call = _moment(trial, method, start)
    number = trial.pick((signal.SIGTERM, signal.SIGINT))
    trial.note(number.name)
    if trial.phase == 1:
        trial.prepared.copy(method, start, trial.workdir)
        before = _stored(trial)
        trial.dying()  # before a program has begun anything a signal may end it at once
        with moments.at(function, call, lambda: os.kill(os.getpid(), number)):
            done = trial.prepared.train(method, trial.workdir)
        _check_stopped(done, number)
        if lost := before - _stored(trial):
            raise Fault(f"a stop lost the saves of tasks {sorted(lost)}\n{done.told()}")
    return _again(trial, method)


def _check_stopped(done: Done, number: signal.Signals) -> None:
    # Ctrl-C is answered at once where a step has to end first: then there is one more line.
    answer = "\nstopping; press Ctrl-C again to stop at once\n"
    if number == signal.SIGINT:
        done = done._replace(err=done.err.replace(answer, "", 1))
    # After its last line a program has nothing more to say: Ctrl-C ends it with its code alone.
    late = "\nreport: " in done.out and not done.err
    if done.code and not (late and done.code == _ENDED[number]):
        one_line(done, "run the same command to continue", codes=(_ENDED[number],))
    else:
        quiet(done)  # it came after all work was done


def disk(trial: Trial) -> str:
    """The n-th use of a file fails, or the system's limits on files are small; then all is well."""
    method, start = _chosen(trial)
    way = trial.pick(("error", "error", "error", "large files", "open files"))
    uses = trial.prepared.counts(method, start)["files"]
    use, number = trial.random.randint(1, max(uses, 1)), trial.pick(moments.ERRORS)
    lasting, size = trial.pick((True, False)), trial.random.randint(4, 64) * 1024
    trial.prepared.copy(method, start, trial.workdir)
    before = _stored(trial)
    if way == "error":
        trial.note(f"{os.strerror(number)} at use {use} of a file, {'and later' * lasting}")
        failure = moments.failing(trial.workdir, use, number, lasting)
    elif way == "large files":
        trial.note(f"no file may be larger than {size} bytes")
        failure = moments.limit(resource.RLIMIT_FSIZE, size)
    else:
        opened = len(os.listdir("/proc/self/fd")) + 8 + size // 2048
        trial.note(f"at most {opened} open files")
        failure = moments.limit(resource.RLIMIT_NOFILE, opened)
    with failure:
        done = trial.prepared.train(method, trial.workdir)
    if done.code:
        names = (str(trial.workdir),) if way == "error" else ()
        one_line(done, *names)
        if "delete" in done.err:
            raise Fault(f"advice to delete after an error that may pass\n{done.told()}")
    else:
        quiet(done)
    if lost := before - _stored(trial):
        raise Fault(f"an error of the disk lost the saves of tasks {sorted(lost)}\n{done.told()}")
    return _again(trial, method)


def process(trial: Trial) -> str:
    """A process of its own gets a signal at a random time after it has begun."""
    method, start = _chosen(trial)
    number = trial.pick((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    delay = trial.random.uniform(0, 12)
    trial.note(f"{number.name} {delay:.2f} s after it began")
    trial.prepared.copy(method, start, trial.workdir)
    done = _signalled(trial, method, number, delay)
    if number == signal.SIGKILL:
        quiet(done)
    else:
        _check_stopped(done, number)
    return _again(trial, method)


def _signalled(trial: Trial, method: str, number: signal.Signals, delay: float) -> Done:
    prepared, started = trial.prepared, time.time()
    words = [
        f"--config={ROOT / 'tests' / 'campaign' / 'config.py'}:{method}",
        f"--config.data.source=npz:{prepared.data}",
        f"--workdir={trial.workdir}",
    ]
    with (trial.folder / "out").open("w+") as out, (trial.folder / "err").open("w+") as err:
        program = [sys.executable, str(ROOT / "launch" / "train.py"), *words]
        child = subprocess.Popen(program, stdout=out, stderr=err, cwd=ROOT)
        try:
            config = trial.workdir / "config.json"
            while child.poll() is None and not _newer(config, started):
                time.sleep(0.05)
            time.sleep(delay)
            child.send_signal(number)
            code = child.wait(timeout=200)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        out.seek(0), err.seek(0)
        return Done(code, out.read(), err.read())


def _newer(path, started: float) -> bool:
    return path.exists() and path.stat().st_mtime >= started - 0.01
