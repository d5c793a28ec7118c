"""All images are checked before training: all faults are named, and nothing is read twice."""

import errno
import os
import threading

import numpy as np
import pytest

from flcl import files, settings, stopping
from flcl.data import images, sources
from flcl.data.base import Begun
from flcl.data.encoded import check
from flcl.data.sequence.stream import make_stream
from flcl.data.sequence.tasks import TaskData


@pytest.fixture
def root(tmp_path, picture):
    """Two classes with six images each, of which a third is for testing."""
    for part, count in (("train", 4), ("test", 2)):
        for red, name in enumerate(("cat", "dog")):
            for number in range(count):
                picture(tmp_path / "pets" / part / name / f"{number}.png", (red, number, count))
    return tmp_path / "pets"


def spoil(root) -> list[str]:
    """Makes five files unreadable, each in another way; returns their names."""
    truncated = root / "train" / "cat" / "0.png"
    truncated.write_bytes(truncated.read_bytes()[:50])
    (root / "train" / "cat" / "1.png").write_bytes(b"")
    (root / "train" / "dog" / "link.png").symlink_to(root / "nowhere")
    os.mkfifo(root / "train" / "dog" / "pipe.png")
    (root / "test" / "dog" / "notes.txt").write_text("a note")
    return ["train/cat/0.png", "train/cat/1.png", "train/dog/link.png", "train/dog/pipe.png",
            "test/dog/notes.txt"]  # fmt: skip


@pytest.fixture
def load(root, data):
    def run(begun=None, progress=check.silent, **values):
        made = data(source=f"folder:{root}", **values)
        return sources.load_source(made, begun=begun, progress=progress)

    return run


@pytest.fixture
def decoded(monkeypatch):
    """The names of all images that are decoded."""
    names, lock, decode = [], threading.Lock(), images.decode

    def note(file, name, data):
        with lock:
            names.append(name.rpartition(": ")[2])
        return decode(file, name, data)

    monkeypatch.setattr(images, "decode", note)
    return names


LAZY = {"memory_gib": 0.0}


@pytest.mark.parametrize("how", [{}, LAZY, {**LAZY, "verify": "headers"}])
def test_all_unreadable_images_are_named_at_once(how, root, load):
    names = spoil(root)
    with pytest.raises(ValueError) as caught:
        load(**how)
    text = str(caught.value)
    # A header says nothing of the pixels after it.
    expected = names[1:] if how.get("verify") == "headers" else names
    assert text.startswith(f"folder:{root}: {len(expected)} of 15 images cannot be used: ")
    assert all(f"{name} (" in text for name in expected)
    assert "pipe.png (it is no regular file)" in text and "1.png (the file is empty)" in text
    assert text.endswith("; repair or remove them, or set data.bad_images=skip to leave unreadable "
                         "images out")  # fmt: skip


def test_images_that_are_not_checked_are_named_when_they_are_decoded(root, load):
    (root / "train" / "dog" / "3.png").write_bytes(b"nothing")
    source = load(**LAZY, verify="off")
    with pytest.raises(ValueError, match=r"train/dog/3\.png: no readable image .* repair or repl"):
        source.train.images[np.arange(8)]


@pytest.mark.parametrize("how", [{}, LAZY])
def test_unreadable_images_are_left_out_and_listed(how, root, load):
    names = spoil(root)
    source = load(bad_images="skip", **how)
    assert source.skipped == tuple(names)
    np.testing.assert_array_equal(np.bincount(source.train.labels), [2, 4])
    np.testing.assert_array_equal(np.bincount(source.test.labels), [2, 2])
    pixels = source.train.images[np.arange(6)][:, 0, 0]
    np.testing.assert_array_equal(pixels[:, 0], source.train.labels)
    np.testing.assert_array_equal(pixels[:, 1], [2, 3, 0, 1, 2, 3])
    assert source.notes == ("5 unreadable images are left out",)
    stored = TaskData(source, make_stream(settings.Stream(tasks="2"), source)).to_dict()
    assert stored["skipped"] == {"count": 5, "files": names}
    assert stored["train_images"] == [2, 4]


def test_a_class_needs_an_image_that_is_not_left_out(root, load):
    for file in (root / "test" / "cat").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="class 'cat' has no test images"):
        load(bad_images="skip")


def test_runs_without_the_key_keep_their_stream(root, load):
    source = load()
    stored = TaskData(source, make_stream(settings.Stream(tasks="2"), source)).to_dict()
    assert "skipped" not in stored and "split" not in stored


@pytest.mark.parametrize("how", [{}, LAZY])
def test_a_run_that_has_begun_leaves_the_same_images_out(how, root, load):
    names = spoil(root)
    few = {"bad_images": "skip", "train_per_class": 3, **how}
    first = load(**few)
    assert first.skipped and set(first.skipped) < set(names)
    pixels = first.train.images[np.arange(len(first.train.labels))]
    # Some are removed, as a user would, and one is repaired.
    for name in first.skipped[1:]:
        (root / name).unlink()
    (root / first.skipped[0]).write_bytes((root / "train" / "dog" / "3.png").read_bytes())
    again = load(begun=Begun(first.skipped), **few)
    assert again.skipped == first.skipped
    np.testing.assert_array_equal(again.train.images[np.arange(len(pixels))], pixels)
    np.testing.assert_array_equal(again.train.labels, first.train.labels)
    (root / "test" / "dog" / "0.png").write_bytes(b"nothing")
    message = r"1 of \d+ images cannot be used: test/dog/0\.png .*; a run that has begun needs"
    with pytest.raises(ValueError, match=message):
        load(begun=Begun(first.skipped), **few)


def test_a_wrong_size_is_no_reason_to_leave_an_image_out(root, load, picture):
    for name in ("a", "b"):
        picture(root / "train" / "cat" / f"{name}.png", size=(20, 11))
    with pytest.raises(ValueError, match=r"2 of 14 .*cat/a\.png \(.*20x11 .*cat/b\.png \(.*20x11"):
        load(resize=False, bad_images="skip")


def test_what_was_checked_is_not_read_again(root, load, decoded, cache):
    assert len(load(**LAZY).train.images) == 8 and len(decoded) == 12
    decoded.clear()
    for verify in ("full", "headers"):
        load(**LAZY, verify=verify)
    assert decoded == []
    changed = root / "train" / "dog" / "1.png"
    os.utime(changed, ns=(1, 1))
    load(**LAZY)
    assert decoded == ["train/dog/1.png"]
    # Outside the folder of the user, and of no consequence when it is lost.
    kept = list((cache / "flcl" / "checked").iterdir())
    assert len(kept) == 1
    for content in (b"", b"nothing"):
        kept[0].write_bytes(content)
        decoded.clear()
        load(**LAZY)
        assert len(decoded) == 12


def test_headers_alone_are_no_full_check(root, load, decoded):
    load(**LAZY, verify="headers")
    assert decoded == []
    load(**LAZY, verify="full")
    assert len(decoded) == 12


def test_a_cache_that_cannot_be_written_is_no_error(root, load, decoded, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(files, "write", refuse)
    for count in (12, 24):
        load(**LAZY)
        assert len(decoded) == count


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_an_error_that_may_pass_leaves_no_image_out(number, root, load, monkeypatch):
    read = files.read_bytes

    def fail(path):
        if path.name == "2.png":
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(files, "read_bytes", fail)
    for how in ({}, LAZY):
        with pytest.raises(OSError, match="2.png") as caught:
            load(bad_images="skip", **how)
        assert caught.value.errno == number


def test_a_stop_ends_the_check_and_keeps_what_was_read(root, load, decoded, monkeypatch):
    monkeypatch.setattr(check, "_CHUNK", 1)
    shown = []

    def progress(text, total):
        shown.append((text, total))

        def advance(done):
            shown.append(done)
            if done == 3:
                raise stopping.StoppedError("stopped")

        return advance

    with pytest.raises(stopping.StoppedError):
        load(progress=progress, **LAZY)
    assert shown == [("checking images", 8), 1, 2, 3]
    begun = set(decoded)
    decoded.clear()
    load(**LAZY)
    assert len(begun) >= 3 and len(decoded) == 12 - len(begun) and not begun & set(decoded)
