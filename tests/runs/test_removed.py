"""A workdir that is removed, renamed or replaced while a run uses it."""

import shutil

import pytest
import tiny

import flcl
from flcl.report.reporter import Reporter
from flcl.runs.saved import workdir as workdirs
from flcl.runs.saved.checkpoint import Checkpoints


def remove(workdir):
    shutil.rmtree(workdir)


def rename(workdir):
    workdir.rename(workdir.with_name("elsewhere"))


def replace(workdir):
    rename(workdir)
    shutil.copytree(workdir.with_name("elsewhere"), workdir)


def put_a_file_there(workdir):
    remove(workdir)
    workdir.write_text("")


@pytest.mark.parametrize("change", [remove, rename, replace, put_a_file_there])
def test_the_lock_knows_its_folder(tmp_path, change):
    workdir = tmp_path / "run"
    with workdirs.locked(workdir) as check_there:
        check_there()
        change(workdir)
        with pytest.raises(ValueError, match=r"run was removed or replaced while the run used it"):
            check_there()


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Checkpoints, "save_task"), (Reporter, "evaluated"), (Reporter, "finished")],
)
def test_a_run_without_its_workdir_ends_with_an_error(data, tmp_path, monkeypatch, owner, name):
    """Whatever is written after the removal would make a folder that looks like a run."""
    workdir, real = tmp_path / "run", getattr(owner, name)

    def after_the_removal(*args):
        shutil.rmtree(workdir, ignore_errors=True)
        return real(*args)

    monkeypatch.setattr(owner, name, after_the_removal)
    with pytest.raises((ValueError, OSError), match=str(workdir)):
        flcl.run(tiny.classifier_of(data, "class_mean"), workdir)
