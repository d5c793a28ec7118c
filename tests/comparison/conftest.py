"""Stored runs: the cells of the tables in `configs/RESULTS*.md`, without networks."""

import shutil
import tarfile
from pathlib import Path

import pytest


def cells(name: str):
    """A fixture: the folder of all cells of the table `name`; nobody writes into it."""

    @pytest.fixture(scope="session", name=name)
    def unpacked(tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp(name)
        with tarfile.open(Path(__file__).parent / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        return folder

    return unpacked


digits = cells("digits")  # classifiers on the digits
generators = cells("generators")  # generators on the digits
pacs50 = cells("pacs50")  # classifiers on PACS, 50 images per class and domain
cifar50 = cells("cifar50")  # classifiers on CIFAR-10 (JPEG), 50 images per class


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
