"""The schema of `results.json`: real files come back unchanged, mistakes are named."""

import copy
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flcl.runs import results
from flcl.runs.results import ClassifierResults, GeneratorResults, from_json, to_json

FROZEN = Path(__file__).parent / "frozen"
METHODS = ("funlora", "fmlora")


def frozen(method: str) -> bytes:
    """`results.json` of the quickstart of a method, as it was when the schema was made."""
    return gzip.decompress((FROZEN / f"results_{method}.json.gz").read_bytes())


def written(values: dict) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()


def holds(new, old) -> bool:
    """Whether every entry of an old file is in the new one, with its value."""
    if isinstance(old, dict):
        return all(name in new and holds(new[name], value) for name, value in old.items())
    if isinstance(old, list):
        pairs = zip(new, old, strict=True)
        return all(holds(after, before) for after, before in pairs)
    return type(new) is type(old) and new == old


@pytest.mark.parametrize("method", METHODS)
def test_a_file_is_written_again_byte_for_byte(method):
    before = frozen(method)
    assert written(to_json(from_json(json.loads(before)))) == before


@pytest.mark.parametrize("method", METHODS)
def test_every_entry_of_a_frozen_file_is_kept(method):
    """Holds also when a later version adds entries."""
    before = json.loads(frozen(method))
    assert holds(to_json(from_json(before)), before)


def test_entries_are_typed():
    generator = from_json(json.loads(frozen("funlora")))
    assert isinstance(generator, GeneratorResults) and generator.complete
    assert generator.matrix[0] == (1.0, None, None, None, None)
    assert generator.summary.last_accuracy == generator.summary.accuracy_per_task[-1]
    assert generator.sampling.solver == "heun" and generator.rows[1].repeats
    assert generator.importance == generator.diagnosis[0].importance
    assert generator.diagnosis[1].importance is None and generator.diagnosis[1].effective_rank
    classifier = from_json(json.loads(frozen("fmlora")))
    assert isinstance(classifier, ClassifierResults) and classifier.head == "linear"
    assert classifier.rank_selection[1] == classifier.diagnosis[1].rank_selection
    assert set(classifier.rows[0].heads) == {"linear", "class_mean"}
    assert classifier.rank_selection[1].probability == pytest.approx(0.5469, abs=1e-4)
    assert classifier.weights.layout == "flcl" and classifier.weights.ignored == ()


def test_the_results_of_every_head_are_typed():
    values = json.loads(frozen("fmlora"))
    names = ("linear", "class_mean", "lda")
    values["heads"] = {name: copy.deepcopy(values["class_mean"]) for name in names}
    del values["class_mean"]
    read = from_json(values)
    assert read.class_mean is None and set(read.heads) == set(names)
    assert (
        read.heads["lda"].summary.last_accuracy == read.heads["lda"].summary.accuracy_per_task[-1]
    )
    assert to_json(read) == values
    del values["heads"]["lda"]["matrix"]
    with pytest.raises(ValueError, match=r"heads.lda.matrix is missing"):
        from_json(values)


def test_a_file_of_the_first_version_is_read():
    """It had no kind, no names of tasks and no steps."""
    values = json.loads(frozen("funlora"))
    first = ("kind", "task_names", "steps_per_task", "diagnosis", "stream_fingerprint", "rows")
    for name in first:
        del values[name]
    del values["summary"]["last_accuracy_task_mean"]
    read = from_json(values)
    assert isinstance(read, GeneratorResults) and read.task_names == () and read.rows == ()
    assert read.summary.last_accuracy_task_mean is None


def test_figures_of_unknown_methods_and_heads_are_kept():
    values = json.loads(frozen("fmlora"))
    values["diagnosis"][0]["novelty"] = {"score": 3}
    values["rows"][0]["ridge"] = [1, 0.5]
    values["weights"].pop("layout")
    again = to_json(from_json(values))
    assert again == values
    assert type(again["rows"][0]["ridge"][0]) is int  # 1 must not become 1.0


@pytest.mark.parametrize(
    ("method", "place", "value", "message"),
    [
        (
            "funlora",
            "rows.1.accuracy",
            "high",
            "rows[1].accuracy is a string, a list of numbers or null is",
        ),
        ("funlora", "rows.0.accuracy", [True], "rows[0].accuracy[0] is true or false, a number or"),
        ("funlora", "seed", 1.5, "seed is a number, an integer or null is needed"),
        ("funlora", "test_counts.2", None, "test_counts[2] is null, an integer is needed"),
        ("funlora", "complete", 1, "complete is an integer, true or false is needed"),
        ("funlora", "matrix", None, "matrix is null, a list of lists of numbers or null is needed"),
        ("funlora", "sampling", [], "sampling is a list, an object or null is needed"),
        ("funlora", "fidelity.per_class.3", "x", "fidelity.per_class.3 is a string, a number or"),
        ("fmlora", "versions.jax", 12, "versions.jax is an integer, a string is needed"),
        ("fmlora", "rows.0.ridge", 1, "rows[0].ridge is an integer, a list of numbers or null"),
        ("fmlora", "kind", "painter", "kind is 'painter', 'generator' or 'classifier' is needed"),
        ("fmlora", "ceiling", [1.0], "ceiling is not known"),
        ("fmlora", "summary.last_acuracy", 1, "summary.last_acuracy is not known. Did you mean"),
    ],
)
def test_a_wrong_entry_is_named(method, place, value, message):
    values = json.loads(frozen(method))
    *path, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    entry = values
    for step in path:
        entry = entry[step]
    entry[str(last) if isinstance(entry, dict) else last] = value
    with pytest.raises(ValueError) as caught:
        from_json(values)
    assert str(caught.value).startswith(f"results.json: {message}")


def test_a_missing_entry_is_named():
    values = json.loads(frozen("fmlora"))
    broken = copy.deepcopy(values)
    del broken["class_mean"]["summary"]["last_accuracy"]
    with pytest.raises(ValueError, match=r"class_mean.summary.last_accuracy is missing, a number"):
        from_json(broken)
    del values["head"]
    with pytest.raises(ValueError, match=r"runs/a: head is missing, a string is needed"):
        from_json(values, "runs/a")
    with pytest.raises(ValueError, match=r"results.json: the file is a list, an object is needed"):
        from_json([])


def test_the_schema_is_read_without_jax():
    code = "import sys, flcl.runs.results; print('jax' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"], results.__file__
