"""The programs in `launch/`, started as a user starts them.

Where the process itself is not the point, a program runs in this one: JAX is imported once.
"""

import contextlib
import csv
import dataclasses
import io
import json
import os
import subprocess
import sys

import edited
import numpy as np
import pytest
from absl import flags
from campaign import trial
from PIL import Image

import flcl
from flcl import programs, settings, stopping
from flcl.report import reading
from flcl.runs.opened.run import changed
from flcl.settings import bridge

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


PROGRAMS = programs.names()


def test_every_program_has_a_thin_file(root):
    files = {path.stem: path.read_text() for path in (root / "launch").glob("[!_]*.py")}
    assert sorted(files) == PROGRAMS
    for name, text in files.items():
        assert text == files["train"].replace("train", name)


def flcl_here(monkeypatch, *words, argv0="/usr/bin/flcl") -> trial.Done:
    """As `flcl WORDS`, in this process."""
    monkeypatch.setattr(sys, "argv", [argv0, *map(str, words)])
    monkeypatch.setattr(stopping, "end_at_once", lambda: None)  # it is for a process of its own
    with texts() as written:
        code = programs.main()
    return trial.Done(code, *written())


@pytest.mark.parametrize("word", ["--help", "-h", ""])
def test_the_command_lists_its_programs(word, monkeypatch):
    done = flcl_here(monkeypatch, *filter(None, [word]))
    assert done.code == 0
    lines = [line for line in done.out.splitlines() if line.startswith("  ")]
    assert [line.split()[:2] for line in lines] == [["flcl", name] for name in PROGRAMS]
    assert "  flcl classify    Classifies unlabelled images: a table with the class" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trian"],
            "'trian': flcl has no such program. Did you mean 'train'? There are analyse, benchmark",
        ),
        (["--workdir=x"], "'--workdir=x': flcl has no such program. There are analyse, benchmark"),
        (["train"], "--config is missing, such as --config=funlora_digits"),
        (["train", "--config=funlora_digits", "--wrkdir=x"], "Did you mean 'workdir'?"),
        (["classify", "--images=x"], "--workdir is missing, such as --workdir=runs/NAME"),
    ],
)
def test_mistakes_after_the_command(words, message, monkeypatch):
    done = flcl_here(monkeypatch, *words)
    assert (done.code == 2 and done.err.startswith(f"error: {message}")) or message in done.err
    assert done.err.count("\n") == 1 and not done.out


def test_commands_in_texts_are_those_of_the_caller(monkeypatch):
    name = "describe"
    for argv0, command in (
        ("/usr/bin/flcl", "flcl describe"),
        ("/x/flcl/__main__.py", "python -m flcl describe"),
    ):
        out = flcl_here(monkeypatch, name, "--help", argv0=argv0).out
        assert f"\n  {command} --config=fmlora_cifar100 --flops\n" in out
    out = launch_here(name, "--help").out
    assert "\n  python launch/describe.py --config=fmlora_cifar100 --flops\n" in out
    assert "flcl describe" not in out


def test_the_package_is_a_program(root, tmp_path):
    command = [sys.executable, "-m", "flcl", "--version"]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == f"flcl {flcl.__version__}\n", done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_launch_help_is_quick_text(name, launch):
    done = launch(name, "--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.stdout.startswith(
        (
            "Trains",
            "Draws",
            "Classifies",
            "Evaluates",
            "Prints",
            "Compiles",
            "Compares",
            "Lists",
            "Teaches",
        )
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
        ("classes", ["--workdir=x"], "the first word must be one of list, export, import, remove"),
        (
            "classes",
            ["exprt"],
            "'exprt': the first word must be one of list, export, import, remove. Did you mean",
        ),
        ("learn", ["--data=digits"], "--workdir is missing, such as --workdir=runs/NAME"),
        ("learn", ["--workdir=runs/there is none", "--data=digits"], "holds no run"),
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data is missing, such as --data=folder:/new/images"),
        (["--data=x", "--config.phase2.step=3"], "Did you mean 'phase2.steps'?"),
        (["--data=x", "--config.phase2.steps=many"], "--config.phase2.steps=many: int is needed"),
        (["--data=x", "--config.phase1.steps=3"], "phase1.steps=3: belongs to all tasks"),
        (["--data=x", "--config.phase2.steps=3"], "data='x': accepted are"),
        (["--data=x", "--out=y"], "--out=y: it is read only with --only"),
        (["--only=2", "--data=x"], "--data and --only"),
        (["--only=2", "--config.phase2.steps=3"], "is trained with the stored keys"),
        (["--only=2"], "with adapter.warm_start='class' a task depends on those before it"),
    ],
)
def test_mistakes_of_learn(words, message, finished):
    done = launch_here("learn", f"--workdir={finished}", *words, code=2)
    assert message in done.err and done.err.count("\n") == 1


def test_help_of_learn_lists_the_keys_of_the_run(finished):
    text = launch_here("learn", "--help").out
    assert "Add --workdir=DIR to list the keys that its next task may change." in text
    text = launch_here("learn", f"--workdir={finished}", "--help").out
    assert "--config.phase2.steps=6" in text and "--config.phase1" not in text


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
        ("sample", ["--out={tmp}/x.png"], "which draws nothing; use python launch/classify.py"),
        ("classify", ["--out={tmp}/x.csv", "--images={tmp}/none"], "none': there is no such file"),
        ("classify", ["--out={tmp}/x.csv", "--images={tmp}"], "there are no files in this folder"),
        ("classify", ["--out={tmp}/x.txt", "--images={tmp}"], "x.txt: must end in .csv"),
        ("classify", ["--out={tmp}/x.csv", "--images=LICENSE", "--head=best"], "head='best'"),
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


def pictures(folder, count: int) -> None:
    """Pictures of two sizes, also in a folder inside; an unreadable one, and a hidden one."""
    (folder / "more, of them").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("more, of them" if number % 2 else "")
        pixels = random.integers(0, 256, (9 + number, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    (folder / "broken.png").write_bytes(b"nothing")
    (folder / ".hidden.png").write_bytes(b"nothing")


def test_classify_writes_a_row_for_each_image_and_names_the_others(classifier, tmp_path):
    folder, out = tmp_path / "pictures", tmp_path / "table.csv"
    pictures(folder, 5)
    words = [f"--workdir={classifier}", f"--images={folder}", f"--out={out}"]
    done = launch_here("classify", *words, code=1)
    assert done.err == f"left out: {folder}/broken.png: it has no format that Pillow knows\n"
    assert done.out.endswith(f"{out}: 5 images classified, 1 left out\n")
    assert "classify  6/6" in done.out
    rows = list(csv.DictReader(out.read_text().splitlines()))
    inside = folder / "more, of them"
    names = [folder / f"{n:02}.png" for n in (0, 2, 4)] + [inside / f"{n:02}.png" for n in (1, 3)]
    assert [row["file"] for row in rows] == list(map(str, names))
    run = flcl.open_run(classifier, "classifier")
    answer = run.classify(names)
    assert [row["class"] for row in rows] == list(answer.names)
    for row, probabilities in zip(rows, answer.probabilities, strict=True):
        first, second = np.argsort(-probabilities)[:2]
        assert row["second"] == run.class_names[second]
        assert float(row["score"]) == pytest.approx(probabilities[first], abs=1e-5)
        assert float(row["second_score"]) == pytest.approx(probabilities[second], abs=1e-5)
    assert "exists already" in launch_here("classify", *words, code=2).err
    words = [words[0], f"--images={names[0]},{names[1]}", words[2], "--overwrite", "--after=1"]
    launch_here("classify", *words)
    assert len(out.read_text().splitlines()) == 3
    launch_here("classify", words[0], words[2], "--overwrite", *names)
    assert len(out.read_text().splitlines()) == 6


def test_files_are_classified_in_batches(classifier, tmp_path, monkeypatch):
    """Never more images at once than a batch, and a bad one is an error without `skipped`."""
    folder = tmp_path / "pictures"
    pictures(folder, 7)
    run = flcl.open_run(classifier, "classifier")
    train = dataclasses.replace(run.settings.train, eval_batch_size=3)
    monkeypatch.setattr(run, "settings", dataclasses.replace(run.settings, train=train))
    classify, sizes, finished, bad = run.classify, [], [], []

    def counted(pixels, **options):
        sizes.append(len(pixels))
        return classify(pixels, **options)

    monkeypatch.setattr(run, "classify", counted)
    answers = list(
        run.classify_files(
            folder,
            skipped=lambda *told: bad.append(told),
            progress=lambda *_: finished.append,
        )
    )
    assert sizes == [3, 2, 2] and finished == [3, 6, 8] and len(bad) == 1
    assert [answer.name for answer in answers] == list(classify([a.file for a in answers]).names)
    with pytest.raises(ValueError, match=r"broken\.png: no readable image"):
        list(run.classify_files(folder))
    for paths, message in (
        ([], "images: none were given"),
        (3, "images=3: paths of files or folders are needed"),
        (b"GIF89a", "images=b'GIF89a': paths of files or folders are needed"),
        ([b"GIF89a"], r"images: b'GIF89a' is no path; `classify` takes pixels and encoded images"),
    ):
        with pytest.raises(ValueError, match=message):
            run.classify_files(paths)
    with pytest.raises(AttributeError, match="has no 'sample': only a generator draws images"):
        _ = run.sample


def test_evaluate_has_a_flag_for_every_key_of_sample_and_judge():
    text = launch_here("evaluate", "--help").out
    assert "linear, class_mean, lda, ridge, gaussian" in " ".join(text.split())
    for section in (settings.Sample, settings.Judge):
        for field in dataclasses.fields(section):
            assert f"--{field.name} " in text


def test_a_list_of_metrics_is_one_flag():
    from flcl.programs import evaluate

    values = flags.FlagValues()
    evaluate.define(values)
    values(["evaluate", "--metrics=fd,kd", "--features=vit:tiny"])
    asked = evaluate._given(values, settings.Judge)
    judge = changed(bridge.freeze(edited.small()), judge=asked).judge
    assert judge.metrics == ("fd", "kd") and judge.features == "vit:tiny"
