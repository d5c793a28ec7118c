"""Folders of images as people have them: test images stay test images, or one line says why not."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from campaign.kinds.inputs import begins, bomb, ending
from campaign.trial import Fault, Trial

# Pairs of words that all mean training and test images.
_TRAIN = (
    "train",
    "Train",
    "TRAIN",
    "training",
    "training_set",
    "Training Set",
    "train_data",
    "trn",
)
_TEST = (
    "test",
    "Test",
    "TESTING",
    "testing",
    "test_set",
    "val",
    "Valid",
    "validation",
    "dev",
    "eval",
)
_DARK, _LIGHT = 40, 200  # all training and all test images: a leak shows in their brightness


def folder(trial: Trial) -> str:
    """A tree of images with one oddity."""
    root = trial.folder / "images"
    way = trial.pick(_WAYS)
    refused = way(root, trial)
    trial.note(way.__name__)
    done = begins(trial, "funlora", f"--config.data.source=folder:{root}")
    if hasattr(done, "setup") and way in (splits, split_domains, bad_image, skipped):
        _check_sides(done.setup.data)
    # A folder of one class is right: it is the tasks of the run that do not fit it.
    names = ("stream.tasks",) if "one class" in trial.notes else (str(root), root.name)
    return ending(done, *names, refused=refused)


def _check_sides(data) -> None:
    """Raises `Fault` if an image of the test folder is among those to train on."""
    images = data.source.train.images
    brightest = max(int(np.asarray(images[np.array([i])]).max()) for i in range(len(images)))
    if brightest > (_DARK + _LIGHT) // 2:
        raise Fault("test images are among the training images")


def _image(path: Path, value: int, random, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((9, 9), value, np.uint8)
    pixels[0, 0] = random.randrange(30)
    Image.fromarray(pixels).save(path, kind)


def _classes(root: Path, value: int, random, names=tuple("abcdef"), count: int = 4) -> None:
    for name in names:
        for number in range(count):
            _image(root / name / f"{number}.png", value, random)


def splits(root, trial):
    """Two folders for training and test images, named in some way."""
    names = trial.pick(_TRAIN), trial.pick(_TEST)
    trial.note(str(names))
    for name, value in zip(names, (_DARK, _LIGHT), strict=True):
        _classes(root / name, value, trial.random)


def split_domains(root, trial):
    """As `splits`, with domains inside."""
    names = trial.pick(_TRAIN), trial.pick(_TEST)
    trial.note(str(names))
    for name, value in zip(names, (_DARK, _LIGHT), strict=True):
        for domain in ("ink", "oil"):
            _classes(root / name / domain, value, trial.random)


def bad_image(root, trial):
    """One unreadable file among good ones."""
    _classes(root / "train", _DARK, trial.random)
    _classes(root / "test", _LIGHT, trial.random)
    path = root / trial.pick(("train", "test")) / "c" / trial.pick(("zz.png", "00.jpg", "x.gif"))
    way = trial.pick(("empty", "text", "cut", "bomb", "pipe", "link", "loop", "device"))
    trial.note(f"{way} {path.name}")
    if way == "pipe":
        os.mkfifo(path)
    elif way in ("link", "loop", "device"):
        path.symlink_to({"link": "nothing", "loop": path.name, "device": "/dev/zero"}[way])
    else:
        good = (root / "train" / "a" / "0.png").read_bytes()
        path.write_bytes({"empty": b"", "text": b"text", "cut": good[:40], "bomb": bomb()}[way])
    return True


def skipped(root, trial):
    """Files and folders that systems leave behind."""
    _classes(root / "train", _DARK, trial.random)
    _classes(root / "test", _LIGHT, trial.random)
    name = trial.pick(
        ("@eaDir", "__MACOSX", "Thumbs.db", "thumbs.db", ".DS_Store", "desktop.ini", "._0.png")
    )
    place = root / trial.pick((".", "train", "train/a", "test/b"))
    trial.note(f"{name} in {place.name}")
    if name in ("@eaDir", "__MACOSX"):
        (place / name).mkdir()
        (place / name / "0.png").write_bytes(b"x")
    else:
        (place / name).write_bytes(b"x")
    return False


def names(root, trial):
    """Class names that a disk allows."""
    odd = trial.pick((
        b"caf\xe9", b"\xff\xfe", "e\u0301t\u00e9".encode(), b"\x1b[31mred", b"a\nb", b" ", b"2",
        "\u202exyz".encode(), b"'\"", b"a" * 200, b"-", b"%s", b"test", b"train",
    ))  # fmt: skip
    trial.note(repr(odd))
    _classes(root, _DARK, trial.random, names="abcde")  # with the odd one they are six
    os.mkdir(os.fsencode(root) + b"/" + odd)
    for number in range(4):
        source = (root / "a" / f"{number}.png").read_bytes()
        with open(os.fsencode(root) + b"/" + odd + f"/{number}.png".encode(), "wb") as file:
            file.write(source)


def two_forms(root, trial):
    """One class in two Unicode forms."""
    _classes(root / "train", _DARK, trial.random, names=(*"abcde", "caf\u00e9"))
    _classes(root / "test", _LIGHT, trial.random, names=(*"abcde", "cafe\u0301"))
    return False


def odd_layout(root, trial):
    """A tree in which files or folders are missing or too deep."""
    way = trial.pick(
        ("empty", "files only", "one class", "empty class", "mixed", "deep", "one image", "file")
    )
    trial.note(way)
    root.mkdir()
    if way == "files only":
        _image(root / "0.png", _DARK, trial.random)
    elif way == "one class":
        _classes(root, _DARK, trial.random, names="a")
    elif way == "file":
        root.rmdir()
        root.write_text("x")
    elif way != "empty":
        _classes(root, _DARK, trial.random)
        if way == "empty class":
            (root / "zz").mkdir()
        elif way == "mixed":
            _classes(root / "g", _DARK, trial.random)
        elif way == "deep":
            _image(root / "a" / "x" / "y" / "0.png", _DARK, trial.random)
        else:
            _classes(root, _DARK, trial.random, names="z", count=1)


def nested_images(root, trial):
    """`train/<class>/images/*`, as Tiny ImageNet has it."""
    for name in "abcdef":
        for number in range(4):
            _image(root / "train" / name / "images" / f"{number}.png", _DARK, trial.random)
            _image(root / "test" / name / "images" / f"{number}.png", _LIGHT, trial.random)
    return False


def large_picture(root, trial):
    """A large but honest picture, or one with a large text."""
    from PIL import PngImagePlugin

    _classes(root / "train", _DARK, trial.random)
    _classes(root / "test", _LIGHT, trial.random)
    if trial.pick((True, False)):
        text = PngImagePlugin.PngInfo()
        text.add_text("comment", "x" * 3_000_000, zip=True)
        Image.new("L", (9, 9), _DARK).save(root / "train" / "a" / "text.png", pnginfo=text)
    else:
        Image.new("L", (14_000, 14_000), _DARK).save(root / "train" / "a" / "large.jpg")
    return False


_WAYS = (splits, splits, splits, split_domains, bad_image, bad_image, skipped, names, two_forms,
         odd_layout, odd_layout, nested_images, large_picture)  # fmt: skip
