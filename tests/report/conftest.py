"""`results.json` of a generator (three tasks of two classes) and of a classifier (domains)."""

import copy
import gzip
import json
from pathlib import Path

import pytest

from flcl.metrics.matrix import summary

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
    "steps_per_task": [4, 2, 2],
    "summary": summary(MATRIX, COUNTS),
    "ceiling": [0.99, 0.98, 0.97],
    "fidelity": {"per_task": [0.5, 0.25, 1.0], "per_class": {"cat": 0.125, "dog": 0.875}},
    "quality": {
        "features": "judge",
        "all": {
            "generated": 80,
            "real": 60,
            "compared": 50,
            "fd": 3.25,
            "kd": 0.01234,
            "kd_error": 0.0021,
            "precision": 0.9,
            "recall": 0.45,
            "density": 1.125,
            "coverage": 0.8,
            "copies": 0.3,
            "copies_of_test": 0.35,
        },
        "per_task": [
            {"generated": 20, "real": 10, "compared": 10, "fd": 5.5, "recall": 0.4},
            None,
            {"generated": 60, "real": 30, "compared": 30, "fd": 4.0, "kd": -0.5, "recall": 0.5},
        ],
        "per_class": {
            "cat": {"generated": 9, "real": 5, "compared": 5, "recall": 0.2},
            "dog": None,
        },
    },
    "sampling": {
        "solver": "heun",
        "num_steps": 25,
        "rtol": 1e-5,
        "atol": 1e-5,
        "chunk": 64,
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

SECOND = [[0.8, None, None], [0.7, 0.5, None], [0.65, 0.55, 0.7]]
THIRD = [[1.0, None, None], [0.9, 0.6, None], [0.85, 0.75, 0.8]]
CLASSIFIER = {
    "name": "pacs",
    "method": "fmlora",
    "kind": "classifier",
    "scenario": "dil",
    "seed": 3,
    "class_order": [0, 1],
    "class_names": ["dog", "elephant"],
    "tasks": [[0, 1]] * 3,
    "task_names": ["photo", "art_painting", "$sketch$"],
    "steps_per_task": [4, 2, 2],
    "matrix": MATRIX,
    "test_counts": COUNTS,
    "summary": summary(MATRIX, COUNTS),
    "head": "linear",
    # In the order of the alphabet, as in a file.
    "heads": {
        name: {"matrix": matrix, "summary": summary(matrix, COUNTS)}
        for name, matrix in (("class_mean", SECOND), ("lda", THIRD), ("linear", MATRIX))
    },
    "drift": {
        "relative": [[0.0, None, None], [0.125, 0.0, None], [0.25, 0.375, 0.0]],
        "cosine": [[0.0, None, None], [0.008, 0.0, None], [0.031, 0.07, 0.0]],
    },
    "rank_selection": [
        {
            "task": 1,
            "complexity": 0.41,
            "centred": 0.0,
            "rank": 10,
            "candidates": [2, 4, 10],
            "probabilities": None,
        },
        {
            "task": 2,
            "complexity": 0.287,
            "centred": -0.3,
            "rank": 4,
            "candidates": [2, 4, 10],
            "probabilities": [0.125, 0.625, 0.25],
        },
        {
            "task": 3,
            "complexity": 0.574,
            "centred": 0.4,
            "rank": 10,
            "candidates": [2, 4, 10],
            "probabilities": [0.0625, 0.0625, 0.875],
        },
    ],
    "weights": {
        "source": "vit.safetensors",
        "layout": "dinov2",
        "sha256": "ab12",
        "normalize": "imagenet",
        "ignored": ["head.weight", "head.bias"],
    },
    "parameters": {
        "trunk_parameters": 22_056_576,
        "shared_parameters": 184_320,
        "sites": ["q", "v"],
        "statistics_bytes": {"per_class": 3_000, "once": 2_360_000},
        "trained_parameters": [190_000, 5_000, 5_000],
        "bytes_per_task": [750_000, 20_000, 20_000],
    },
    "versions": {"flcl": "0.1.0"},
    "complete": True,
}


@pytest.fixture
def classified() -> dict:
    """Of the heads linear (the method's), class_mean and lda."""
    return copy.deepcopy(CLASSIFIER)


@pytest.fixture
def older() -> dict:
    """What an older version wrote: the head linear, and class_mean under its own name."""
    packed = Path(__file__).parents[1] / "runs" / "frozen" / "results_fmlora.json.gz"
    return json.loads(gzip.decompress(packed.read_bytes()))


@pytest.fixture
def results() -> dict:
    return copy.deepcopy(RESULTS)


@pytest.fixture(scope="module", autouse=True)
def _all_pictures(quick_pictures):
    """Pages and pictures as users get them."""
    quick_pictures(False)
    yield
    quick_pictures(True)
