"""A run of many tasks holds what its tasks store, and nothing else grows with their number."""

import tiny
from watched import watched

import flcl

# Rows, diagnoses and names of files of one task: 13 to 30 objects were counted. A program that is
# compiled again has thousands.
PER_TASK = 100


def check(sizes, first: int) -> None:
    """Nothing but some objects grows after task `first`, when all programs are compiled."""
    objects, arrays, files, threads = zip(*sizes[first - 1 :], strict=True)
    assert objects[-1] - objects[0] < PER_TASK * (len(objects) - 1)
    # Capacity is given when a run begins, so its memory does not grow either.
    assert set(arrays) == {arrays[0]}
    assert max(files) == files[0]
    assert max(threads) == threads[0]


# The second run of a process is looked at: the first one also meets fonts and small programs for
# the first time, which stay.


def test_a_classifier_does_not_grow_with_its_tasks(data, tmp_path):
    run = tiny.classifier_of(data, "class_mean", stream__tasks="6")
    flcl.run(run, tmp_path / "first")
    check(watched(run, tmp_path / "run")[1], first=2)


def test_a_generator_does_not_grow_with_its_tasks(finished, data, tmp_path):
    check(watched(tiny.settings_of(data), tmp_path / "run")[1], first=2)
