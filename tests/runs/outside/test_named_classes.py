"""Every command that takes classes reads them alike: ids, names, and texts such as "2,fox"."""

import shutil

import numpy as np
import pytest

import flcl


@pytest.fixture(scope="module")
def run(finished):
    """The finished tiny run."""
    return flcl.open_run(finished)


def sampled(run, classes, folder):
    return run.sample(classes, 1).names


def mixed(run, classes, folder):
    return run.sample(labels=classes).names


def exported(run, classes, folder):
    return tuple(path.stem for path in run.export_classes(classes, folder / "out", overwrite=True))


def removed(run, classes, folder):
    copy = shutil.copytree(run.workdir, folder / "copy", dirs_exist_ok=True)
    return tuple(each.name for each in flcl.open_run(copy).remove_classes(classes))


COMMANDS = (sampled, mixed, exported, removed)


@pytest.mark.parametrize("command", COMMANDS)
def test_classes_by_id_name_and_text(command, run, tmp_path):
    given = ("2,fox", ["cat", 5], np.array([2, 5]))
    if command is removed:  # one removal is enough
        given = given[:1]
    for classes in given:
        assert command(run, classes, tmp_path) == ("cat", "fox")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_list_of_classes_has_the_same_line(command, run, tmp_path):
    for classes, why in (
        ([], "=[]: at least one is needed"),
        (2.5, "=2.5: a list of ids or names is needed, such as [3, 5]"),
        ("2,caat", "class 'caat' is not in this run: accepted are 0-5 or a name. Did you mean"),
    ):
        with pytest.raises(ValueError) as caught:
            command(run, classes, tmp_path)
        assert why in str(caught.value)
