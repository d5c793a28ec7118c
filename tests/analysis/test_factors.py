"""Ranks, weights and importance of class factors, against closed forms and plain NumPy."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frames import entropy_rank, read
from safetensors.numpy import load_file

import flcl
from flcl import methods
from flcl.adapters import functional
from flcl.adapters.layers import select_layers
from flcl.analysis import factors
from flcl.models.convolutions import convolutions
from flcl.models.unet import UNet
from flcl.report.writers import MetricWriter
from flcl.runs.opened.inside import ClassFactors
from flcl.runs.opened.run import changed

PARTS = ("a", "b", "alpha", "omega")


@pytest.fixture(scope="module")
def run(finished):
    return flcl.open_run(finished)


@pytest.fixture(scope="module")
def files(run, tmp_path_factory):
    """The factors of each class by name, from the files that a user exports."""
    folder = tmp_path_factory.mktemp("classes")
    return {path.stem: load_file(path) for path in run.export_classes(None, folder)}


def test_ranks_are_those_of_the_naive_matrix(run, files):
    rows = read(factors.ranks(run).data)
    assert len(rows) == 6 * 4  # classes x adapted convolutions
    for row in rows:
        of_layer = {
            name: files[row["class"]][f"{row['convolution']}/{name}"].astype(float).ravel()
            for name in ("a", "b", "alpha", "omega")
        }
        product = np.outer(of_layer["b"], of_layer["a"])
        terms = [
            a * np.cos(w * product)
            for a, w in zip(of_layer["alpha"], of_layer["omega"], strict=True)
        ]
        matrix = np.mean(terms, axis=0)
        assert int(row["largest_possible"]) == min(matrix.shape)
        assert float(row["effective_rank"]) == pytest.approx(entropy_rank(matrix), rel=1e-3)
    assert {row["task"] for row in rows} == {"1", "2", "3"}


def ranks_of(run, monkeypatch, a: np.ndarray, b: np.ndarray, alpha: np.ndarray) -> list:
    """Effective ranks by class, if these are the factors of the one convolution: shifts."""
    rows = {name: jnp.asarray(v, jnp.float32) for name, v in (("a", a), ("b", b), ("alpha", alpha))}
    convolution = {"index": 0, "name": "input", "shape": [3, 3, b.shape[1], a.shape[1]]}
    made = ClassFactors(("x", "y"), (1, 2), (convolution,), {"input": rows})
    monkeypatch.setattr(factors, "class_factors", lambda run: made)
    family = flcl.runs.opened.run.changed(run.settings, adapter={"family": "shift"})
    monkeypatch.setattr(run, "settings", family)
    return factors.ranks(run)


def test_closed_forms_of_the_effective_rank(run, monkeypatch):
    """Shifts of (e_0, e_0) add up to the identity: rank d. Shifts of ones are all equal: rank 1."""
    d = 5
    first = np.eye(d)[0]
    vectors = np.stack([first, np.ones(d)])
    analysis = ranks_of(run, monkeypatch, vectors, vectors, np.ones((2, d)))
    np.testing.assert_allclose(analysis.data.column("effective_rank"), [d, 1], rtol=1e-4)
    assert analysis.data.column("numerical_rank") == [d, 1]
    # After task 1 there is one class, after task 2 there are both.
    assert [row[:2] for row in analysis.short.rows] == [(1, 1), (2, 2)]
    means = analysis.short.column("mean effective rank")
    np.testing.assert_allclose(means, [d, (d + 1) / 2], rtol=1e-4)


def test_weights_and_frequencies_are_those_of_the_class_files(run, files):
    rows = read(factors.alphas(run).data)
    assert len(rows) == 4 * 2  # convolutions x functions
    for row in rows:
        for name in ("alpha", "omega"):
            each = [file[f"{row['convolution']}/{name}"].ravel() for file in files.values()]
            values = np.stack(each).astype(float)[:, int(row["i"]) - 1]
            assert float(row[name]) == pytest.approx(values.mean(), rel=1e-5)
            assert float(row[f"{name}_deviation"]) == pytest.approx(values.std(), abs=1e-5)


def test_what_top_k_takes_is_marked(run, finished: Path):
    analysis = factors.importance(run, top=2)
    stored = {entry.name: entry.score for entry in run.results.importance}
    rows = read(analysis.data)
    for row in rows:
        assert float(row["score"]) == pytest.approx(stored[row["convolution"]], rel=1e-5)
    network = UNet(run.settings.model, 1, 0.0, "auto")
    names = [conv.name for conv in convolutions(network, run.settings.data.image_size)]
    taken = select_layers(f"top:2@{finished}", names)
    assert tuple(int(row["index"]) for row in rows if row["chosen"] == "1") == taken
    assert len(factors.importance(run).short.rows) == 4  # by default as many as are adapted


def test_parameters_are_those_of_a_class_file(run, files):
    (row,) = read(factors.parameters(run).data)
    count = sum(values.size for values in files["ant"].values())
    assert (int(row["parameters_per_class"]), int(row["bytes_per_class"])) == (count, 4 * count)
    accuracy = run.results.summary.last_accuracy
    assert float(row["last_accuracy"]) == pytest.approx(accuracy, rel=1e-5)


def test_of_many_classes_evenly_spaced_ones_are_taken():
    assert factors._evenly(3, 20) == [0, 1, 2]
    assert factors._evenly(100, 5) == [0, 25, 50, 74, 99]


def test_ranks_in_training_are_those_of_the_naive_matrices(run, files, tmp_path):
    """A record has the mean over two classes, and says whether a rank exceeds p = 2."""
    logged = changed(run.settings, adapter={"record_ranks": 2})
    method = methods.shared(logged, run._setup.method.stream)
    memory, task = run._memory(3), run.stream.tasks[0]
    factors_of = functional.take(memory["bank"], np.array(task.labels))
    last = method.watched({"factors": factors_of}, task)
    ones = jax.tree.map(jnp.ones_like, factors_of)
    first = method.watched({"factors": ones}, task)
    naive = {}
    for convolution in method.describe()["adapted_convolutions"]:
        name, ranks = convolution["name"], []
        for label in task.labels:
            f = files[run.class_names[run.stream.class_order[label]]]
            a, b, alpha, omega = (f[f"{name}/{k}"].astype(float).ravel() for k in PARTS)
            terms = [x * np.cos(w * np.outer(b, a)) for x, w in zip(alpha, omega, strict=True)]
            ranks.append(entropy_rank(np.mean(terms, axis=0)))
        naive[convolution["index"]] = ranks
    assert last["mean_rank"] == pytest.approx(np.mean(list(naive.values())), rel=1e-3)
    assert last["max_rank"] == pytest.approx(np.max(list(naive.values())), rel=1e-3)
    for index, ranks in naive.items():
        assert last[f"rank/{index:02d}"] == pytest.approx(np.mean(ranks), rel=1e-3)
    # F of ones is constant: rank 1 everywhere.
    assert first["mean_rank"] == pytest.approx(1, abs=1e-3)
    assert run._setup.method.watched({"factors": factors_of}, task) == {}
    run = SimpleNamespace(**{**vars(run), "workdir": tmp_path})
    assert "--config.adapter.record_ranks=1" in factors.without_training_ranks(run)
    with MetricWriter(tmp_path, tensorboard=False) as writer:
        writer.write(task=1, step=2, phase="phase1", loss=1.0, **first)
        writer.write(task=1, step=3, phase="phase1", loss=1.0)
        writer.write(task=1, step=4, phase="phase1", loss=1.0, **last)
        writer.write(task=1, step=6, phase="phase1", loss=1.0, **(last | {"max_rank": 2.5}))
    assert factors.without_training_ranks(run) == ""
    analysis = factors.training_ranks(run)
    rows = read(analysis.data)
    assert [row["step"] for row in rows] == ["2"] * 4 + ["4"] * 4 + ["6"] * 4
    assert float(rows[4]["effective_rank"]) == pytest.approx(np.mean(naive[0]), rel=1e-3)
    (short,) = analysis.short.rows
    assert short[:2] == (1, 6) and short[4:] == (2.5, 6 if last["max_rank"] <= 2 else 4)
    analysis.draw(tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").read_bytes()[:4] == b"\x89PNG"
