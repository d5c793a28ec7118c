"""The programs in `launch/`, started as a user starts them.

Where the process itself is not the point, a program runs in this one: JAX is imported once.
"""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys

import pytest
from campaign import trial

from flcl import settings
from flcl.report import reading

CONFIG = "configs/funlora_digits.py"
CLASSIFIER = "configs/fmlora_digits.py"


@pytest.fixture(autouse=True)
def _errors_in_one_line(monkeypatch, root):
    monkeypatch.delenv("FLCL_TRACEBACK", raising=False)
    monkeypatch.chdir(root)


@contextlib.contextmanager
def texts():
    """What Python code in the block prints to its two outputs."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        yield lambda: (out.getvalue(), err.getvalue())


def launch_here(name: str, *words, code: int = 0) -> trial.Done:
    """As the fixture `launch`, in this process; returns exit code and texts."""
    done = trial.command(name, *words, capture=texts)
    assert done.code == code, done.told()
    return done


PROGRAMS = ["train", "sample", "evaluate", "describe", "precompile", "benchmark", "classes"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_launch_help_is_quick_text(name, launch):
    done = launch(name, "--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.stdout.startswith(
        ("Trains", "Draws", "Evaluates", "Prints", "Compiles", "Compares", "Lists")
    )
    assert f"launch/{name}.py" in done.stdout and "Flags:" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "absl.flags" in imported and "jax" not in imported


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_the_packages_help_helps_and_the_program_says_what_to_do(name, root):
    def run(*words):
        # -S: without the packages of this Python.
        command = [sys.executable, "-S", "-E", f"launch/{name}.py", *words]
        return subprocess.run(command, cwd=root, capture_output=True, text=True)

    done = run("--help")
    assert done.returncode == 0 and f"python launch/{name}.py" in done.stdout
    assert done.stdout.rstrip().endswith("bash launch/install.sh")
    done = run("--workdir=x")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "not installed" in done.stderr and "run bash launch/install.sh, then" in done.stderr


def test_a_terminal_without_unicode_shows_what_it_can(launch):
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    done = launch("describe", f"--config={CONFIG}", "--config.name=\xe9t\xe9", env=env)
    assert "\\xe9t\\xe9" in done.stdout and "\u2500" not in done.stdout


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("train", [f"--config={CONFIG}"], "--workdir is missing, such as --workdir=runs/NAME"),
        ("train", ["--workdir=x"], "--config is missing"),
        ("describe", [f"--config={CONFIG}", "--jsn"], "Did you mean 'json'?"),
        ("sample", ["--workdir=x", "--out=x.gif"], "--out=x.gif: must end in .png or .npz"),
        ("sample", ["--workdir=x"], "--out is missing"),
        ("sample", ["--workdir=x", "--out=README.md"], "must end in"),
        ("sample", ["--workdir=runs/there is none", "--out=x.png"], "there is none"),
        ("classes", ["--workdir=x"], "the first word must be one of list, export, remove"),
        (
            "classes",
            ["exprt"],
            "'exprt': the first word must be one of list, export, remove. Did you mean",
        ),
        ("classes", ["list"], "--workdir is missing"),
        ("classes", ["list", "cat", "--workdir=x"], "unexpected argument 'cat'"),
        ("classes", ["export", "--workdir=x"], "--out is missing"),
        ("sample", ["--workdir=x", "export"], "unexpected argument 'export'"),
        ("evaluate", ["--workdir=x", "--out=x.txt"], "--out=x.txt: must end in .json"),
        ("evaluate", ["--workdir=x", "--solver"], "Missing value for flag --solver"),
        ("evaluate", ["--workdir=runs/there is none", "--out=x.json"], "there is none"),
    ],
)
def test_launch_mistakes(name, words, message):
    done = launch_here(name, *words, code=2)
    assert message in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1


def test_a_mistake_is_the_exit_code_of_the_process(launch):
    done = launch("train", f"--config={CONFIG}", code=2)
    assert done.stderr == "error: --workdir is missing, such as --workdir=runs/NAME\n"
    assert not done.stdout


def test_describe_prints_the_sizes_as_json_and_as_a_table():
    done = launch_here("describe", f"--config={CONFIG}", "--json")
    sizes = json.loads(done.out)
    assert set(sizes) == {
        "trunk_parameters",
        "parameters_per_class",
        "adapted_convolutions",
        "bytes_per_task",
    }
    layers = sizes["adapted_convolutions"]
    assert all(set(layer) >= {"index", "name", "shape", "parameters"} for layer in layers)
    # A and B per layer, and 10 alphas and 10 omegas.
    expected = [layer["shape"][2] + layer["shape"][3] + 20 for layer in layers]
    assert [layer["parameters"] for layer in layers] == expected
    assert sizes["parameters_per_class"] == sum(expected)
    assert len(sizes["bytes_per_task"]) == 5
    table = launch_here("describe", f"--config={CONFIG}").out
    assert f"{sizes['trunk_parameters']:,}" in table
    assert layers[-1]["name"] in table


def test_describe_prints_the_sizes_of_a_classifier():
    done = launch_here("describe", f"--config={CLASSIFIER}", "--json")
    sizes = json.loads(done.out)
    assert set(sizes) == {
        "trunk_parameters",
        "shared_parameters",
        "parameters_per_task",
        "prompt_parameters",
        "head_parameters",
        "statistics_bytes",
        "trained_parameters",
        "bytes_per_task",
    }
    assert sizes["trunk_parameters"] == 304_320
    assert sizes["shared_parameters"] == 12 * 10 * 2 * 64  # q and v of 6 blocks
    assert sizes["parameters_per_task"] == 12 * 2 * 10**2
    table = launch_here("describe", f"--config={CLASSIFIER}").out
    assert "304,320" in table and "bytes, task 5" in table
    assert reading.statistics(sizes["statistics_bytes"]) in table and "a class" in table


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, root):
    """Workdir of a finished classifier that trained nothing."""
    workdir, config = tmp_path_factory.mktemp("run") / "run", root / CLASSIFIER
    launch_here("train", f"--config={config}:smoke,baseline=class_mean", f"--workdir={workdir}")
    return workdir


def test_evaluate_of_a_classifier_writes_numbers_and_a_picture(classifier, tmp_path):
    done = launch_here("evaluate", f"--workdir={classifier}")
    (found,) = (classifier / "evaluations").glob("*.json")
    assert str(found) in done.out and found.with_suffix(".png").stat().st_size > 1000
    results = json.loads(found.read_text())
    assert results["images"] == sum(map(sum, results["confusion"]))
    right = sum(results["confusion"][i][i] for i in range(10))
    assert results["top1"] == pytest.approx(right / results["images"])
    assert results["top1"] <= results["top5"] <= 1.0 and results["per_domain"] == {}
    out = tmp_path / "one.json"
    launch_here("evaluate", f"--workdir={classifier}", "--after=1", f"--out={out}")
    assert json.loads(out.read_text())["after_task"] == 1


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("sample", ["--out={tmp}/x.png"], "the run of a classifier, which draws nothing"),
        ("evaluate", ["--solver=euler"], "--solver: {run} is the run of a classifier"),
        ("evaluate", ["--data=folder:nowhere"], "folder:nowhere: no such folder"),
        ("evaluate", ["--head=best"], "head='best': accepted are class_mean, lda, ridge"),
        ("classes", ["export", "--out={tmp}", "--merged"], "whose classes share one adapter"),
        ("classes", ["export", "--out={tmp}"], "it leaves the weights as they are"),
        ("evaluate", ["--after=9"], "this run has learned tasks 1-2"),
    ],
)
def test_bad_questions_to_a_classifier(classifier, tmp_path, name, words, message):
    words = [word.format(tmp=tmp_path) for word in words]
    done = launch_here(name, f"--workdir={classifier}", *words, code=2)
    assert message.format(run=classifier) in done.err and done.err.count("\n") == 1


def test_evaluate_has_a_flag_for_every_key_of_sample_and_judge():
    text = launch_here("evaluate", "--help").out
    assert "linear, class_mean, lda, ridge, gaussian" in " ".join(text.split())
    for section in (settings.Sample, settings.Judge):
        for field in dataclasses.fields(section):
            assert f"--{field.name} " in text
