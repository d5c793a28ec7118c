"""The process in which trials run, one after another: `worker.py FOLDER PIPE_IN PIPE_OUT`.

It reads one line of JSON for each trial and answers with one. It may die in a trial; `driver.py`
then starts another.
"""

import faulthandler
import gc
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0:1] = [str(ROOT), str(ROOT / "tests")]

_TRIALS_OF_PROGRAMS = 20


def main() -> None:
    """Runs the trials that the pipe names."""
    folder, read, write = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    log = os.fdopen(os.dup(2), "w")  # a trial looks at what is written to 2
    faulthandler.enable(log)
    faulthandler.register(signal.SIGUSR1, log, all_threads=False)
    import flcl.api
    from campaign.kinds import KINDS
    from campaign.prepared import Prepared
    from campaign.trial import Fault, Trial
    from flcl.report.pictures import canvas

    assert flcl.api
    canvas.DPI = 30  # nobody looks at the pictures
    gc.set_threshold(100_000, 20, 20)  # as in the tests: tracing leaves little to collect

    def answer(**values) -> None:
        os.write(write, json.dumps(values).encode() + b"\n")

    prepared = Prepared(folder, more_time=lambda seconds: answer(seconds=seconds))

    for trials, line in enumerate(os.fdopen(read), start=1):
        asked = json.loads(line)
        where = os.getcwd()
        dying = lambda: answer(dying=True)  # noqa: E731
        trial = Trial(
            asked["seed"], asked["number"], asked["kind"], asked["phase"], prepared, dying
        )
        ended, problem = "", ""
        try:
            ended = KINDS[asked["kind"]](trial)
        except Fault as fault:
            problem = str(fault)
        except BaseException:  # nothing may end this process but a signal
            problem = traceback.format_exc()
        os.chdir(where)
        _tidy(trials)
        answer(ended=ended, problem=problem, notes=trial.notes)


def _tidy(trials: int) -> None:
    """What a process would lose at its end, and a long campaign would collect.

    Some trials in a row use the same programs: tracing them is most of a trial.
    """
    import jax

    if len(threading.enumerate()) > 200:
        os.write(2, b"more than 200 threads\n")
    if trials % _TRIALS_OF_PROGRAMS == 0:
        jax.clear_caches()
    gc.collect()


if __name__ == "__main__":
    main()
