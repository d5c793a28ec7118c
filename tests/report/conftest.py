"""Results of a run of three tasks with two classes each."""

import copy

import pytest

from flcl.evaluate.matrix import summary

MATRIX = [[0.9, None, None], [0.8, 0.7, None], [0.75, 0.65, 0.6]]
COUNTS = [10, 20, 30]
RESULTS = {
    "name": "toy",
    "method": "funlora",
    "scenario": "cil",
    "seed": 7,
    "class_order": [3, 1, 0, 2, 5, 4],
    "class_names": ["cat", "dog", "$cow$", "<b>fox</b>", "hen & co", "a name that goes on and on"],
    "tasks": [[0, 1], [2, 3], [4, 5]],
    "matrix": MATRIX,
    "test_counts": COUNTS,
    "summary": summary(MATRIX, COUNTS),
    "ceiling": [0.99, 0.98, 0.97],
    "fidelity": {"per_task": [0.5, 0.25, 1.0], "per_class": {"cat": 0.125, "dog": 0.875}},
    "sampling": {
        "solver": "heun",
        "num_steps": 25,
        "function_evaluations": 50,
        "images_per_class": [500, 500, 480, 500, 500, 500],
        "oversample": 5.0,
        "judge_sees_of_newest_task": "synthetic",
    },
    "parameters": {
        "trunk_parameters": 35_746_307,
        "parameters_per_class": 10_028,
        "adapted_convolutions": [{"index": 40}, {"index": 41}],
        "bytes_per_task": [143_000_000, 80_224, 80_224],
    },
    "versions": {"flcl": "0.1.0", "jax": "0.10.2"},
    "complete": True,
}


@pytest.fixture
def results() -> dict:
    return copy.deepcopy(RESULTS)
