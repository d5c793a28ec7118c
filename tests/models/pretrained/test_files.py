"""Files, folders and names of weights: what is read, and what is refused in one line."""

import dataclasses
import hashlib
import sys
import types

import numpy as np
import pytest
from weight_files import PLAIN, SIZE, folder, tree, write

from flcl.models.pretrained import load as pretrained


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
