"""Stored runs: the cells of the tables in `configs/RESULTS*.md`, without networks."""

import shutil
import tarfile
from pathlib import Path

import pytest


def unpacked(name: str, tmp_path_factory) -> Path:
    """The folder of all cells of a table; nobody writes into it."""
    folder = tmp_path_factory.mktemp(name)
    with tarfile.open(Path(__file__).parent / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """The cells of the classifiers on the digits."""
    return unpacked("digits", tmp_path_factory)


@pytest.fixture(scope="session")
def generators(tmp_path_factory) -> Path:
    """The cells of the generators on the digits."""
    return unpacked("generators", tmp_path_factory)


@pytest.fixture(scope="session")
def pacs50(tmp_path_factory) -> Path:
    """The cells of the classifiers on PACS, 50 images per class and domain."""
    return unpacked("pacs50", tmp_path_factory)


@pytest.fixture(scope="session")
def cifar50(tmp_path_factory) -> Path:
    """The cells of the classifiers on CIFAR-10 (JPEG), 50 images per class."""
    return unpacked("cifar50", tmp_path_factory)


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
