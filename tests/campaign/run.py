"""A campaign of random faults: trials end equal, repaired, accepted, or in one clear line.

    python tests/campaign/run.py --minutes=60 --seed=0
    python tests/campaign/run.py --minutes=10 --only=damage,weights
    python tests/campaign/run.py --repro=0:17:damage

A fault is printed at once with the words that repeat it. The exit code is 1 if there was any. The
folder (--folder) keeps the undisturbed runs for the next call; delete it after the library changed.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path[0:1] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

from campaign.driver import Driver, Result, kind_of

WEIGHTS = {
    "array": (4, 90),
    "value": (6, 90),
    "source": (4, 90),
    "folder": (5, 90),
    "weights": (4, 90),
    "archive": (3, 90),
    "config_file": (2, 90),
    "damage": (8, 120),
    "stranger": (3, 120),
    "kill": (4, 300),
    "stop": (4, 300),
    "disk": (3, 300),
    "process": (1, 400),
}
"""Kind -> (how often it is chosen, seconds after which it hangs)."""


def main(words: list[str] | None = None) -> int:
    """Runs the campaign; returns 1 if there was a fault."""
    given = _arguments(words)
    only = given.only.split(",") if given.only else list(WEIGHTS)
    weights = {kind: WEIGHTS[kind][0] for kind in WEIGHTS if kind in only}
    with (
        tempfile.TemporaryDirectory() as temporary,
        Driver(Path(given.folder or temporary)) as driver,
    ):
        if given.repro:
            seed, number, kind = given.repro.split(":")
            results = [trial(driver, int(seed), int(number), kind)]
            print("\n".join(results[0].notes), flush=True)
        else:
            results = _until(driver, given, weights)
    print(table(results))
    return 1 if any(result.problem for result in results) else 0


def trial(driver: Driver, seed: int, number: int, kind: str) -> Result:
    """One trial, whose fault is printed at once."""
    result = driver.trial(seed, number, kind, WEIGHTS[kind][1])
    print(f"{number} {kind}: {result.ended or 'fault'}, {result.seconds:.0f} s", file=sys.stderr)
    if result.problem:
        print(f"--- {result.repro()}: {'; '.join(result.notes)}\n{result.problem}\n", flush=True)
    return result


def table(results: list[Result]) -> str:
    """Counts of each kind and ending."""
    endings = ("equal", "repaired", "one clear line", "accepted", "fault")
    counts = Counter((result.kind, result.ended or "fault") for result in results)
    lines = [f"{'kind':12}" + "".join(f"{name:>16}" for name in endings) + f"{'seconds':>10}"]
    for kind in [kind for kind in WEIGHTS if any(r.kind == kind for r in results)]:
        seconds = sum(result.seconds for result in results if result.kind == kind)
        row = "".join(f"{counts[kind, name]:16}" for name in endings)
        lines.append(f"{kind:12}{row}{seconds:10.0f}")
    totals = [sum(counts[kind, name] for kind in WEIGHTS) for name in endings]
    seconds = sum(result.seconds for result in results)
    lines.append(f"{'all':12}" + "".join(f"{n:16}" for n in totals) + f"{seconds:10.0f}")
    return "\n".join(lines)


def _until(driver: Driver, given, weights: dict[str, int]) -> list[Result]:
    """Trials until the time is over; what is made once does not count."""
    results, number = [], 0
    deadline = time.time() + 60 * given.minutes
    while time.time() < deadline and (not given.trials or number < given.trials):
        kind = kind_of(given.seed, number, weights)
        results.append(trial(driver, given.seed, number, kind))
        number += 1
    return results


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="time of the campaign")
    parser.add_argument("--trials", type=int, default=0, help="number of trials; 0 = no limit")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds make equal trials")
    parser.add_argument("--only", default="", help=f"kinds, of {', '.join(WEIGHTS)}")
    parser.add_argument("--repro", default="", help="SEED:NUMBER:KIND: this trial alone")
    parser.add_argument("--folder", default="", help="where to work; default: a temporary folder")
    given = parser.parse_args(words)
    if unknown := set(filter(None, given.only.split(","))) - set(WEIGHTS):
        parser.error(f"--only={','.join(sorted(unknown))}: kinds are {', '.join(WEIGHTS)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
