"""`launch/classes.py`: the list of classes and their files, as a user gets them."""

import json
import re

import pytest

from flcl import cli
from flcl.adapters import artifact
from flcl.programs import classes as module


@pytest.fixture
def classes(capsys, monkeypatch):
    """`classes("list", ..., code=0)`: what the program prints; of a mistake what it complains."""
    monkeypatch.delenv("FLCL_TRACEBACK", raising=False)

    def run(*words, code=0):
        argv = ["launch/classes.py", *words]
        program = {"doc": module.__doc__, "define": module.define, "takes_words": module.WORDS}
        given = cli.main(module.main, **program, argv=argv)
        told = capsys.readouterr()
        assert given == code, told.err
        return told.err if code else told.out

    return run


def test_the_list_as_a_table_and_as_json(classes, finished):
    table = classes("list", f"--workdir={finished}")
    assert all(name in table for name in ("ant", "fox", "parameters"))
    listed = json.loads(classes("list", f"--workdir={finished}", "--json"))
    assert listed[2] == {
        "id": 2,
        "name": "cat",
        "task": 2,
        "parameters": 73,
        "bytes": 292,
        "removed": None,
    }


def test_files_of_classes_of_the_trunk_and_merged_networks(classes, finished, tmp_path):
    asked = ("export", f"--workdir={finished}", f"--out={tmp_path}")
    done = classes(*asked, "--classes=cat,5", "--trunk")
    names = ["cat.safetensors", "fox.safetensors", "trunk.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        assert f"{tmp_path / name}: {(tmp_path / name).stat().st_size:,} bytes" in done
    trunk = artifact.read_trunk(tmp_path / "trunk.safetensors").about.sha256
    assert artifact.read_class(tmp_path / "cat.safetensors").about.trunk == trunk
    refused = classes(*asked, "--classes=cat", code=2)
    assert "cat.safetensors: exists already" in refused and refused.count("\n") == 1
    classes(*asked, "--classes=cat", "--merged", "--overwrite")
    assert artifact.read_merged(tmp_path / "cat.safetensors").about.trunk == trunk


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--classes=dogg"], "Did you mean 'dog'"),
        (["--prefix=vit."], "--model and --prefix: .* is the run of a generator"),
    ],
)
def test_bad_questions(words, why, classes, finished, tmp_path):
    done = classes("export", f"--workdir={finished}", f"--out={tmp_path}", *words, code=2)
    assert done.startswith("error: ") and done.count("\n") == 1
    assert re.search(why, done)
