"""The SHA-256 of images follows their content and order (or their names), and nothing else."""

import hashlib
import os

import numpy as np
from PIL import Image

from flcl import settings
from flcl.data import digest
from flcl.data.encoded.lazy import EncodedImages, ImageFiles
from flcl.data.images import LazyImages
from flcl.data.selection import Selection

DATA = settings.Data()


def of_files(folder, names):
    return digest.sha256(EncodedImages(ImageFiles("here", folder, names), DATA))


def test_files_by_their_bytes(tmp_path):
    for number, name in enumerate("abc"):
        Image.effect_noise((6, 6), 40 + number).save(tmp_path / f"{name}.png")
    names = ["a.png", "b.png", "c.png"]
    before, contents = of_files(tmp_path, names), [(tmp_path / n).read_bytes() for n in names]
    each = b"".join(hashlib.sha256(content).digest() for content in contents)
    assert before == hashlib.sha256(each).hexdigest()
    (tmp_path / "b.png").rename(tmp_path / "other.png")
    assert of_files(tmp_path, ["a.png", "other.png", "c.png"]) == before
    assert of_files(tmp_path, ["other.png", "a.png", "c.png"]) != before
    (tmp_path / "c.png").unlink()
    os.mkfifo(tmp_path / "c.png")  # a source says that it is no image; here nobody waits for it
    assert of_files(tmp_path, ["a.png", "other.png", "c.png"]) != before


def test_arrays_by_their_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 1), np.uint8)
    before = digest.sha256(pixels)
    assert digest.sha256(pixels.copy()) == before
    other = pixels.copy()
    other[299, 3, 3, 0] ^= 1
    assert len({before, digest.sha256(other), digest.sha256(pixels.reshape(300, 2, 8, 1))}) == 3
    lazy = LazyImages(300, lambda positions: (pixels[k] for k in positions), DATA)
    lazy.shape = pixels.shape
    assert digest.sha256(lazy) == before


def test_a_set_by_its_pixels_and_names():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)

    def total(**rows):
        return digest.of_set({n: Selection(pixels, np.array(each)) for n, each in rows.items()})

    by_hand = sum(
        int(hashlib.sha256(f"{name} (4, 4, 1)".encode() + pixels[row].tobytes()).hexdigest(), 16)
        for name, row in (("ant", 0), ("ant", 3), ("bee", 1))
    )
    whole = total(ant=[0, 3], bee=[1])
    assert whole == f"{by_hand % 2**256:064x}" == total(bee=[1], ant=[3, 0])
    parts = (int(total(ant=[0]), 16), int(total(ant=[3], bee=[1]), 16))
    assert int(whole, 16) == sum(parts) % 2**256
    others = total(bee=[0, 3], ant=[1]), total(ant=[0, 3, 3], bee=[1]), total(ant=[0, 3])
    assert len({whole, *others}) == 4
    lazy = LazyImages(6, lambda positions: (pixels[k] for k in positions), DATA)
    assert digest.of_set({"ant": Selection(lazy, np.array([0]))}) is None
