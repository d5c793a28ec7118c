"""What a user gets: the package in Python, the README's calls, the notebook, and the wheel."""

import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny

import flcl
from flcl.settings import bridge


def test_the_package_says_what_there_is():
    import pydoc

    assert set(flcl.__all__) <= set(dir(flcl))
    # A room with the name of a function would take its place as soon as it is imported.
    assert not {module.name for module in pkgutil.iter_modules(flcl.__path__)} & set(flcl.__all__)
    for name in flcl.__all__:
        assert getattr(flcl, name).__doc__, name
    text = pydoc.plain(pydoc.render_doc(flcl))
    for name in flcl.__all__:
        assert f"flcl.{name}(" in text or name in text
    with pytest.raises(AttributeError, match="module 'flcl' has no attribute 'trian'. Did you"):
        _ = flcl.trian


# As many images as the tiny runs of all other tests have.
FEW = {"data__train_per_class": 24, "data__test_per_class": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An empty folder for a user's scripts; two of them share its runs."""
    return tmp_path_factory.mktemp("user")


@pytest.fixture
def tried(folder):
    """Executes a user's script in that folder, with a tiny run on the data of each call.

    The settings of the script itself are loaded too, so a key that does not exist is an error. What
    a shipped config trains is tested by its smoke run.
    """
    real = flcl.load_config

    def load_config(config, overrides=None):
        given = bridge.as_dict(real(config, overrides))
        kept = {"data__source": given["data"]["source"], "stream__tasks": given["stream"]["tasks"]}
        return tiny.run_of(folder / "none.npz", given["method"], **kept, **FEW)

    def run(text: str) -> dict:
        values: dict = {}
        exec(compile(text, "script", "exec"), values)
        return values

    # Not the fixture of that name: no program changes, so those of other tests are used again.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(flcl, "load_config", load_config, raising=False)
        yield run


def test_the_calls_of_the_readme(tried, root, capsys):
    readme = (root / "README.md").read_text()
    section = readme.partition("## From Python\n")[2].partition("\n## ")[0]
    values = tried(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1])
    out = capsys.readouterr().out
    assert "<generator 'funlora' in 'runs/a': 4 of 4 tasks learned, 8 classes: 0, 1, 2" in out
    assert values["run"].class_names == tuple("0123456789") and len(values["run"].learned) == 5
    assert values["samples"].images.shape == (2, 16, 8, 8, 1)
    assert len(values["answer"].names) == 16
    again = values["again"].sample([3, 5], per_class=16)
    np.testing.assert_array_equal(again.images, values["samples"].images)


def test_the_notebook_runs_and_has_no_outputs(tried, root):
    notebook = json.loads((root / "launch" / "tour.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = notebook["cells"]
    names = [cell["id"] for cell in cells]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[\w-]{1,64}", n) for n in names)
    for cell in cells:
        keys = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            keys |= {"execution_count", "outputs"}
            assert cell["outputs"] == [] and cell["execution_count"] is None
        assert set(cell) == keys and cell["metadata"] == {}
    # The runs of the README's calls are complete, so these train nothing.
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    places = {"runs/tour/generator": "runs/a", "runs/tour/classifier": "runs/b"}
    for place, trained in places.items():
        assert text.count(place) == 1
        text = text.replace(place, trained)
    values = tried(text)
    assert (values["first"].images == values["last"].images).all()
    assert len(values["answer"].names) == 8


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, root) -> Path:
    """The wheel, built from a copy of what is needed: a build leaves files behind."""
    place = tmp_path_factory.mktemp("build")
    for name in ("flcl", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / name, place / "source" / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, place / "source")
    words = ["wheel", "--no-build-isolation", "--no-deps", "--no-index", "--quiet"]
    _pip(*words, "--wheel-dir", place, place / "source")
    (built,) = place.glob("*.whl")
    return built


def _pip(*words) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_has_all_files_of_the_library_and_the_configs(wheel, root):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(root).as_posix()
        for path in (root / "flcl").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".md")
    }
    made = {"flcl/models/assets/make_tiny_vit.py", "flcl/data/assets/make_assets.py"}
    expected |= {f"flcl/configs/{path.name}" for path in (root / "configs").glob("*.py")}
    assert expected - made <= inside
    assert not [name for name in inside if name.startswith(("configs/", "tests/", "launch/"))]


def test_the_wheel_trains_and_samples_in_an_empty_environment(wheel, tmp_path):
    """Its environment sees the packages that flcl needs, and not the checkout."""
    environment, place = tmp_path / "venv", tmp_path / "empty"
    place.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    _pip("--python", environment, "install", "--no-deps", "--no-index", "--quiet", wheel)
    packages = next(environment.glob("lib/python*/site-packages"))
    # Only the folder: its own path files, which may name a checkout, are not read.
    (packages / "needed.pth").write_text(f"{Path(np.__file__).parents[1]}\n")

    def call(*words) -> str:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [environment / "bin" / "flcl", *words]
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call("train", "--config=funlora_digits:smoke", "--workdir=run", "--config.seed=3")
    results = json.loads((place / "run" / "results.json").read_text())
    assert results["complete"] is True and results["seed"] == 3
    assert results["steps_per_task"] == [4, 4]
    page = (place / "run" / "report.html").read_text()
    assert "flcl train --config=defaults:funlora" in page and "launch/" not in page
    call("sample", "--workdir=run", "--classes=3,5", "--per_class=2", "--out=drawn.npz")
    with np.load(place / "drawn.npz") as drawn:
        assert drawn["images"].shape == (2, 2, 8, 8, 1)
    python = environment / "bin" / "python"
    code = "import flcl; print(flcl.__file__)"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([python, "-c", code], cwd=place, env=env, capture_output=True, text=True)
    assert Path(done.stdout.strip()).is_relative_to(environment)
