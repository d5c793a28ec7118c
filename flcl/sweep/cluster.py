"""The cells of a sweep as an array job of SLURM: one cell for each number of the array."""

import shlex
from collections.abc import Iterable, Sequence

_SCRIPT = """\
#!/usr/bin/env bash
# {count} cells of a sweep as an array job of SLURM; each number of the array is a cell. Run this
# file with bash, in the checkout. A cell that is stopped goes back into the queue; when all have
# ended, the same sweep with --slurm lists what is left.
sbatch --array={numbers} --job-name=sweep --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 "$@" \\
    launch/slurm.sbatch sweep {words}
"""


def script(words: Sequence[str], numbers: Iterable[int]) -> str:
    """The text of a script that submits cells as an array job.

    words: the command line of the sweep, without the flags that choose cells. numbers: of cells.
    """
    numbers = sorted(numbers)
    return _SCRIPT.format(count=len(numbers), numbers=ranges(numbers), words=shlex.join(words))


def ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as SLURM writes them.

    >>> ranges([1, 2, 3, 7])
    '1-3,7'
    """
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
