"""All analyses of a run: what is written, what is asked for by mistake, what continues."""

import dataclasses
import gzip
import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from frames import entropy_rank, read

import flcl
from flcl import cli
from flcl.analysis import items, sampling, updates
from flcl.analysis.rows import KeptRows
from flcl.flow import sampler
from flcl.programs import analyse
from flcl.report import page
from flcl.runs.opened.inside import task_updates
from flcl.runs.results import from_json

FROZEN = Path(__file__).parents[1] / "runs" / "frozen"


@pytest.fixture(scope="module")
def run(finished):
    return flcl.open_run(finished)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run of FM-LoRA after its first task."""
    folder = tmp_path_factory.mktemp("frozen")
    with tarfile.open(FROZEN / "format_5" / "fmlora.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return flcl.open_run(folder / "fmlora")


def program(*words, code: int = 0) -> None:
    argv = ["analyse", *map(str, words)]
    assert cli.main(analyse.main, doc=analyse.__doc__, define=analyse.define, argv=argv) == code


def sealed(workdir: Path) -> dict[str, bytes]:
    """The bytes of every file of a run except its page, the plots in it, and analyses."""
    every = (path for path in sorted(workdir.rglob("*")) if path.is_file())
    names = {str(path.relative_to(workdir)): path for path in every}
    made_again = ("report.html", "plots/", "analysis/")
    return {name: p.read_bytes() for name, p in names.items() if not name.startswith(made_again)}


def test_the_program_writes_beside_the_run_and_changes_nothing_in_it(finished, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    before = sealed(workdir)
    program(f"--workdir={workdir}")
    written = {path.name for path in (workdir / "analysis").iterdir()}
    pictures = {"ranks.png", "alphas.png", "importance.png"}
    assert written == pictures | {"ranks.csv", "alphas.csv", "importance.csv", "parameters.csv"}
    assert all((workdir / "analysis" / name).read_bytes()[:4] == b"\x89PNG" for name in pictures)
    assert sealed(workdir) == before
    out = capsys.readouterr().out
    assert "Rank of F, cosine_learnable, p = 2" in out and "adapter.layers=top:4@" in out
    assert '<a href="analysis/ranks.png">' in (workdir / page.NAME).read_text()


def test_mistakes_are_one_line_before_anything_is_written(run, classifier, data, tmp_path, capsys):
    finetune = tiny.settings_of(data, "finetune")
    no_factors = SimpleNamespace(
        kind="generator", settings=finetune, workdir="runs/x", learned=(1,), results=None
    )
    moved = dataclasses.replace(
        run.settings, adapter=dataclasses.replace(run.settings.adapter, family="vanilla_mult")
    )
    vanilla = SimpleNamespace(**{**vars(run), "settings": moved}, kind="generator")
    cases = [
        (run, ["rank"], {}, r"--only='rank': accepted are ranks, alphas, .* Did you mean 'ranks'"),
        (run, ["drift"], {}, "--only=drift: .* is the run of a generator, which has ranks, alphas"),
        (classifier, ["alphas"], {}, "the run of a classifier, which has ranks, drift, prompt"),
        (classifier, ["drift"], {}, "--only=drift: .*: results.json has no drift"),
        (no_factors, ["ranks"], {}, "method=finetune: no class has factors; those of funlora have"),
        (no_factors, [], {}, "no class has factors.*; --only=oversampling,evaluations needs none"),
        (vanilla, ["alphas"], {}, "adapter.family=vanilla_mult has no alpha_i"),
        (run, [], {"budgets": (0,)}, "--budgets=0: whole numbers from 1"),
        (
            run,
            [],
            {"budgets": (1, 3), "solvers": ("midpoint",)},
            "--budgets=1,3: no solver has so many evaluations; .* multiples .*: midpoint 2",
        ),
        (run, [], {"solvers": ("eular",)}, "--solvers='eular': accepted .* Did you mean 'euler'"),
        (run, [], {"grids": ("square",)}, "sample.grid='square': accepted are uniform, cosine"),
        (run, [], {"factors": (0.0,)}, "--factors=0: numbers above 0"),
    ]
    for opened, only, asked, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            items.analyse(opened, only, tmp_path / "out", items.Options(**asked))
        assert "\n" not in str(caught.value)
    program(f"--workdir={run.workdir}", "--seeds=0,x", code=2)
    assert capsys.readouterr().err.startswith("error: --seeds=0,x: whole numbers are needed")
    assert not (tmp_path / "out").exists() and not (run.workdir / "analysis").exists()


def test_a_stopped_curve_continues_and_its_first_seed_is_the_run_itself(run, tmp_path):
    """The settings of the run are one cell: its row has the numbers of `results.json`."""
    told = []

    def stop(line):
        told.append(line)
        if len(told) == 2:
            raise KeyboardInterrupt

    euler = {"solvers": ("euler",), "budgets": (2,), "grids": ("uniform",)}
    options = items.Options(**euler, seeds=(0, 1), tell=stop)
    with pytest.raises(KeyboardInterrupt):
        list(items.analyse(run, ["evaluations"], tmp_path, options))
    assert not (tmp_path / "evaluations.csv").exists()
    ((_, analysis),) = items.analyse(run, ["evaluations"], tmp_path, options)
    assert told == ["euler uniform 2 steps, seed 0", *["euler uniform 2 steps, seed 1"] * 2]
    first, second = read(analysis.data)
    quality = run.results.quality.all
    wanted = {
        "accuracy": run.results.summary.last_accuracy,
        "fidelity": np.mean(list(run.results.fidelity.per_class.values())),
        "evaluations": 2,
        **{name: getattr(quality, name) for name in ("fd", "kd", "recall", "precision")},
    }
    for name, value in wanted.items():
        assert float(first[name]) == pytest.approx(value, rel=1e-4), name
    assert second["seed"] == "1" and second["fd"] != first["fd"]
    made = (tmp_path / "evaluations.csv").read_bytes()
    list(items.analyse(run, ["evaluations"], tmp_path, options))
    assert (tmp_path / "evaluations.csv").read_bytes() == made and len(told) == 3
    assert (tmp_path / "evaluations.png").exists()


def test_more_samples_are_judged_as_evaluate_judges_them(run, tmp_path):
    options = items.Options(factors=(0.5, 1))
    ((_, analysis),) = items.analyse(run, ["oversampling"], tmp_path, options)
    half, whole = (float(row["accuracy"]) for row in read(analysis.data))
    assert whole == pytest.approx(run.results.summary.last_accuracy, rel=1e-5)
    again = run.evaluate(judge={"oversample": 0.5, "metrics": ()})
    assert half == pytest.approx(again["summary"]["last_accuracy"], rel=1e-5)
    assert (tmp_path / "oversampling.png").exists()


def test_kept_rows_of_another_state_or_a_damaged_file_are_not_read(run, tmp_path):
    path = tmp_path / "rows.json"
    KeptRows(path, run).put("x", {"fd": 1.0})
    assert KeptRows(path, run)["x"] == {"fd": 1.0}
    fewer = SimpleNamespace(**{**vars(run), "learned": (1, 2)})
    assert "x" not in KeptRows(path, fewer)
    path.write_text("{")
    assert "x" not in KeptRows(path, run)


def test_cells_have_the_evaluations_that_were_asked_for():
    cells = list(sampling._cells(sampler.SOLVERS, (1, 2, 8), ("uniform", "cosine")))
    fixed = [cell for cell in cells if cell.steps]
    assert {c.steps * sampler.CALLS_OF_STEP[c.solver] for c in fixed} == {1, 2, 8}
    # One step is the same on every grid, so it is drawn once.
    assert [c.solver for c in fixed if c.steps == 1] == ["euler", "midpoint", "heun"]
    assert len({cell.name for cell in cells}) == len(cells)


def test_updates_of_fm_lora_are_those_of_the_whole_matrix(classifier, tmp_path):
    made = dict(items.analyse(classifier, [], tmp_path))
    assert set(made) == {"ranks", "prompt"}
    memory = classifier._memory(1)
    for row in read(made["ranks"].data):
        block, site = row["map"].split("/")
        entry = classifier._setup.method.inference(memory)["adapters"][block][site]
        a, core, b = (np.asarray(entry[name], float) for name in ("a", "core", "b"))
        assert float(row["effective_rank"]) == pytest.approx(entropy_rank(a @ core @ b.T), rel=1e-3)
        assert row["rank_of_task"] == str(classifier.settings.lora.rank)
    (update,) = task_updates(classifier)
    norms = [float(row["norm"]) for row in read(made["prompt"].data)]
    np.testing.assert_allclose(norms, np.sqrt((update.prompt**2).sum(axis=1)), rtol=1e-5)
    assert {"ranks.png", "prompt.png"} < {path.name for path in tmp_path.iterdir()}


def test_drift_is_that_of_the_results(tmp_path):
    with gzip.open(FROZEN / "results_fmlora.json.gz") as file:
        values = json.load(file)
    results = from_json(values)
    assert updates.without_drift(SimpleNamespace(results=results)) == ""
    analysis = updates.drift(SimpleNamespace(results=results))
    analysis.draw(tmp_path / "drift.png")
    assert (tmp_path / "drift.png").exists()
    rows = read(analysis.data)
    matrix = values["drift"]["relative"]
    known = [(t + 1, v) for t, row in enumerate(matrix) for v in row if v is not None]
    assert [int(row["task"]) for row in rows] == [task for task, _ in known]
    np.testing.assert_allclose([float(r["relative"]) for r in rows], [v for _, v in known], 1e-5)
