"""Stored runs: the cells of the table of the digits in `configs/RESULTS.md`, without networks."""

import shutil
import tarfile
from pathlib import Path

import pytest

STORED = Path(__file__).parent / "digits.tar.xz"


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """The folder of all cells; nobody writes into it."""
    folder = tmp_path_factory.mktemp("digits")
    with tarfile.open(STORED) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def copied(digits, tmp_path):
    """Copies some cells: `copied("frozen*")`; returns the folder of the copies."""

    def copy(*patterns: str) -> Path:
        out = tmp_path / "runs"
        for pattern in patterns:
            for cell in sorted(digits.glob(pattern)):
                shutil.copytree(cell, out / cell.name)
        return out

    return copy
