"""Files, folders and names of weights: what is read, and what is refused in one line."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
from weight_files import PLAIN, SIZE, flat_of, folder, timm, tree, write

from flcl.models.pretrained import files
from flcl.models.pretrained import load as pretrained
from flcl.storage import npz


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 7, 1_000, 100_000])
def test_truncated_files(tmp_path, ending, kept):
    path = tmp_path / f"w{ending}"
    model = write(path, tree())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"w{ending} is truncated or no {ending} file") as error:
        pretrained.load(model, SIZE)
    assert "\n" not in str(error.value)


def test_hash_is_checked_before_the_file_is_read(tmp_path):
    path = tmp_path / "w.safetensors"
    model = write(path, tree())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (
        pretrained.load(dataclasses.replace(model, sha256=digest.upper()), SIZE).model.sha256
        == digest
    )
    path.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(ValueError, match=f"model.sha256={digest}: .* has SHA-256 {found}"):
        pretrained.load(dataclasses.replace(model, sha256=digest), SIZE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.npz", "no such file or folder; accepted are tiny, random"),
        ("w.pth", ".pth is not read; accepted"),
        ("bare", "a file without ending is not read"),
        ("empty", "the folder has no model.safetensors"),
        ("json", "config.json is not readable JSON"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, message):
    for file in ("w.pth", "bare"):
        (tmp_path / file).write_bytes(b"x")
    for inside in ("empty", "json"):
        (tmp_path / inside).mkdir()
    (tmp_path / "json" / "config.json").write_text("{")
    (tmp_path / "json" / "model.safetensors").write_text("{")
    with pytest.raises(ValueError, match=message):
        pretrained.load(dataclasses.replace(PLAIN, weights=str(tmp_path / name)), SIZE)


def test_hub(tmp_path, monkeypatch):
    model = dataclasses.replace(PLAIN, weights="hub:someone/vit")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="needs huggingface_hub; `pip install"):
        pretrained.load(model, SIZE)
    folder(tmp_path, {"num_attention_heads": 4})
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    np.testing.assert_array_equal(
        pretrained.load(model, SIZE).params["class_token"], tree()["class_token"]
    )
    assert asked[0][0] == "someone/vit" and "config.json" in asked[0][1]

    def offline(name, allow_patterns):
        raise ConnectionError("no route\nto host")

    hub.snapshot_download = offline
    with pytest.raises(ValueError, match="cannot be had from the hub .no route.; check") as error:
        pretrained.load(model, SIZE)
    assert "\n" not in str(error.value)


def shards(folder, change=lambda table: table, missing=()):
    """A folder with two files and an index, as `save_pretrained` writes a large model."""
    tensors, table = timm(tree()), {}
    names = sorted(tensors)
    for number, some in enumerate((names[:20], names[20:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        table |= dict.fromkeys(some, file)
        if number not in missing:
            write(folder / file, {name: tensors[name] for name in some})
    index = {"metadata": {"total_size": 1}, "weight_map": change(table)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return dataclasses.replace(PLAIN, weights=str(folder))


def test_weights_in_several_files(tmp_path):
    model = shards(tmp_path)
    loaded = pretrained.load(model, SIZE)
    for name, value in tree().items():
        np.testing.assert_array_equal(flat_of(loaded)[name], value)
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in parts)).hexdigest()
    assert loaded.model.sha256 == digest  # cat model-*.safetensors | sha256sum
    index = dataclasses.replace(model, weights=f"{tmp_path}/model.safetensors.index.json")
    assert pretrained.load(index, SIZE).model.sha256 == digest
    with pytest.raises(ValueError, match="is one of several files; give model.safetensors.index"):
        pretrained.load(dataclasses.replace(model, weights=str(parts[0])), SIZE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table | {"x": "../w.safetensors"}, "names '../w.safetensors', which is not"),
        (lambda table: table | {"x": "/w.safetensors"}, "names '/w.safetensors', which is not"),
        (lambda table: table | {"x": "a/w.safetensors"}, "names 'a/w.safetensors', which is not"),
        (lambda table: table | {"x": "model.bin"}, "names 'model.bin', which is not the name"),
        (lambda table: table | {"x": 5}, "names 5, which is not the name of a .safetensors"),
        (lambda table: None, "index.json has no table weight_map"),
        (lambda table: {}, "index.json has no table weight_map"),
        (lambda table: table | {"x": min(table.values())}, "has no tensor 'x', which model.saf"),
    ],
)
def test_an_index_names_only_files_of_its_folder(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        pretrained.load(shards(tmp_path, change), SIZE)


def test_a_missing_file_of_several_is_named(tmp_path):
    with pytest.raises(ValueError, match="1 of 2 files are missing .model-00002-of-00002.safet"):
        pretrained.load(shards(tmp_path, missing=(2,)), SIZE)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize(
    "name", ["w.safetensors", "w.npz", "d/model.safetensors", "d/config.json", "s/model-2.safe"]
)
def test_what_is_no_regular_file_is_not_opened(tmp_path, kind, name):
    (tmp_path / "d").mkdir()
    (tmp_path / "s").mkdir()
    write(tmp_path / "d" / "model.safetensors", timm(tree()))
    shards(tmp_path / "s")
    path = tmp_path / name.replace("model-2.safe", "model-00002-of-00002.safetensors")
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    place = path if path.parent == tmp_path else path.parent
    with pytest.raises(ValueError, match=f"{path.name} is not a regular file"):
        pretrained.load(dataclasses.replace(PLAIN, weights=str(place)), SIZE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https:" + b"//git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n",
         "is a Git LFS pointer, not the file itself; run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html><body>", "is a web page, not the file itself; download"),
        (b"<HTML lang=en>", "is a web page, not the file itself; download the file"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["w.npz", "model.safetensors", "config.json"])
def test_what_stands_in_the_place_of_a_file(tmp_path, content, message, name):
    write(tmp_path / "model.safetensors", timm(tree()))
    (tmp_path / name).write_bytes(content)
    place = tmp_path / name if name == "w.npz" else tmp_path
    with pytest.raises(ValueError, match=f"{name} {message}"):
        pretrained.load(dataclasses.replace(PLAIN, weights=str(place)), SIZE)


class Program:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "ran")


@pytest.mark.parametrize("name", ["w.npz", "o.npz", "w.safetensors", "w.pt", "w.pth", "w.bin"])
def test_nothing_is_unpickled(tmp_path, name):
    program = Program(tmp_path / "ran")
    if name == "o.npz":
        np.savez(tmp_path / name, cls=np.array([program], dtype=object))
    else:
        (tmp_path / name).write_bytes(pickle.dumps(program))
    with pytest.raises(ValueError, match="pickled objects|truncated or no|is not read.*programs"):
        pretrained.load(dataclasses.replace(PLAIN, weights=str(tmp_path / name)), SIZE)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(program))
    assert (tmp_path / "ran").exists(), "the program would have run"


def archive(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return dataclasses.replace(PLAIN, weights=str(path))


def test_archives_of_other_things(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds 'data', which is no array of NumPy"):
        pretrained.load(archive(tmp_path / "w.npz", data=b"x"), SIZE)
    monkeypatch.setattr(npz, "_BOMB", 100_000)
    with pytest.raises(ValueError, match="its [0-9]{3} bytes would unpack to 0.000186 GiB"):
        pretrained.load(archive(tmp_path / "w.npz", data=bytes(200_000)), SIZE)
    header = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(header, about)
    with pytest.raises(ValueError, match="not enough memory for w.npz .Unable to allocate"):
        pretrained.load(archive(tmp_path / "w.npz", data=header.getvalue()), SIZE)


def test_numbers_of_eight_bits_are_refused_by_name(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    with pytest.raises(ValueError, match="has 'a' of type F8_E4M3; read are F64, F32, F16, BF16"):
        pretrained.load(dataclasses.replace(PLAIN, weights=str(path)), SIZE)


def test_names_in_files_cannot_write_on_the_terminal(tmp_path):
    evil = {"a\n\x1b[31m": np.ones(1, "f4"), "z" * 100_000: np.ones(1, "f4")}
    model = write(tmp_path / "w.safetensors", timm(tree()) | evil)
    with pytest.raises(ValueError) as error:
        pretrained.load(model, SIZE)
    assert r"2 left over (a\n\x1b[31m, zzz" in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("name", ["w.safetensors", "w.npz", "d/config.json"])
def test_an_error_of_the_disk_is_not_damage(tmp_path, monkeypatch, number, name):
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "model.safetensors", timm(tree()))
    write(tmp_path / "w.safetensors", timm(tree()))
    write(tmp_path / "w.npz", timm(tree()))
    (tmp_path / "d" / "config.json").write_text("{}")
    bad, opened = str(tmp_path / name), io.open

    def failing(path, *args, **kwargs):
        if str(path) == bad:
            raise OSError(number, os.strerror(number), bad)
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(io, "open", failing)
    place = tmp_path / name if name.startswith("w") else tmp_path / "d"
    with pytest.raises(OSError) as error:
        pretrained.load(dataclasses.replace(PLAIN, weights=str(place)), SIZE)
    assert error.value.errno == number and error.value.filename == bad


def test_an_error_of_the_disk_inside_the_library(tmp_path, monkeypatch):
    model = write(tmp_path / "w.safetensors", timm(tree()))

    def failing(path):
        raise safetensors.SafetensorError("Io(Os: Input/output error (os error 5))")

    monkeypatch.setattr(files, "_safetensors", failing)
    with pytest.raises(OSError) as error:
        pretrained.load(model, SIZE)
    assert (error.value.errno, error.value.filename) == (errno.EIO, model.weights)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\0b.npz", "a path is needed"),
        ("", "a path is needed"),
        ("~nobody-has-this-name/w.npz", "no such home folder"),
        ("nowhere/w.npz", "no such file or folder; accepted are tiny, random"),
    ],
)
def test_names_that_no_file_can_have(name, reason):
    with pytest.raises(ValueError, match=reason) as error:
        pretrained.load(dataclasses.replace(PLAIN, weights=name), SIZE)
    assert repr(name) in str(error.value)
