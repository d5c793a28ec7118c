"""Finished tiny runs, trained once for all tests of this folder."""

import json

import pytest
import tiny

import flcl


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """An `npz:` data set of six classes."""
    return tiny.write_data(tmp_path_factory.mktemp("data") / "six.npz")


@pytest.fixture(scope="session")
def finished(data, tmp_path_factory):
    """Workdir of a complete FunLoRA run of three tasks."""
    workdir = tmp_path_factory.mktemp("runs") / "funlora"
    results = flcl.run(tiny.settings_of(data), workdir)
    stored = json.loads((workdir / "results.json").read_text())
    assert json.loads(json.dumps(results)) == stored
    return workdir
