"""Files of pre-trained weights that are damaged, forged or of another model."""

import json
import struct
from pathlib import Path

import numpy as np
import safetensors.numpy

from campaign.kinds.inputs import begins, ending, odd_file
from campaign.trial import ROOT, Trial

_TINY = Path("flcl") / "models" / "assets" / "tiny_vit.safetensors"
_FILES = ("cut", "flip", "garbage", "empty", "pipe", "folder", "device", "pointer", "page")


def weights(trial: Trial) -> str:
    """Weights as a file or a folder with one fault."""
    folder = trial.folder / "weights"
    folder.mkdir()
    path = folder / "model.safetensors"
    path.write_bytes((ROOT / _TINY).read_bytes())
    way = trial.pick((*_FILES, *_FORGED, *_TENSORS, *_BESIDE))
    trial.note(way)
    if way in _FILES:
        odd_file(path, way, trial.random)
    elif way in _FORGED:
        path.write_bytes(_forged(path.read_bytes(), way))
    elif way in _TENSORS:
        tensors = safetensors.numpy.load_file(path)
        name = trial.pick(sorted(tensors))
        trial.note(name)
        tensors = _TENSORS[way](tensors, name)
        safetensors.numpy.save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, path)
    else:
        file = trial.pick(("config.json", "preprocessor_config.json"))
        trial.note(file)
        (folder / file).write_text(_BESIDE[way])
    # A digit of a value may change unseen, unless the user gave the digest of the file.
    refused = None if way in ("flip", "extra", "float64", "null", "a number inside") else True
    if way in _BESIDE:
        refused = None
    given = trial.pick((path, folder))
    done = begins(trial, "fmlora", f"--config.model.weights={given}")
    return ending(done, "weights", "model.", str(given), refused=refused)


_FORGED = (
    "long header",
    "negative offsets",
    "overlap",
    "huge shape",
    "bad type",
    "nested",
    "no header",
)


def _forged(content: bytes, way: str) -> bytes:
    size = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    name = next(n for n in sorted(header) if n != "__metadata__")
    entry = header[name]
    if way == "long header":
        return struct.pack("<Q", 2**62) + content[8:]
    if way == "no header":
        return content[:8] + b"x" * size + body
    if way == "negative offsets":
        entry["data_offsets"] = [-8, entry["data_offsets"][1]]
    elif way == "overlap":
        header[next(n for n in reversed(sorted(header)) if n != "__metadata__")] = entry
    elif way == "huge shape":
        entry["shape"] = [2**31, 2**31]
    elif way == "bad type":
        entry["dtype"] = "Q8"
    else:
        header["__metadata__"] = {"a": {"b": [1] * 10}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _with(change):
    return lambda tensors, name: {**tensors, name: change(tensors[name])}


_TENSORS = {
    "one missing": lambda tensors, name: {n: t for n, t in tensors.items() if n != name},
    "extra": lambda tensors, name: {**tensors, "blocks.99.extra": tensors[name]},
    "renamed": lambda tensors, name: {(n + "x" if n == name else n): t for n, t in tensors.items()},
    "other shape": _with(lambda t: t[..., None]),
    "shorter": _with(lambda t: t.reshape(-1)[:-1]),
    "NaN": _with(lambda t: np.full_like(t, np.nan)),
    "infinite": _with(lambda t: np.full_like(t, np.inf)),
    "integers": _with(lambda t: t.astype(np.int32)),
    "overflow": _with(lambda t: np.full(t.shape, 1e200)),
    "float64": _with(lambda t: t.astype(np.float64)),
    "empty": lambda tensors, name: {"x": np.zeros(3, np.float32)},
}

_BESIDE = {
    "a list": "[]",
    "no JSON": "{",
    "null": '{"pretrained_cfg": null, "image_mean": null, "hidden_act": null}',
    "a number inside": '{"pretrained_cfg": 3}',
    "odd mean": '{"mean": "x", "std": [1], "image_mean": {}, "image_std": []}',
    "NaN mean": '{"mean": [NaN, 0, 0], "std": [0, 0, 0], "image_mean": [1e999, 0, 0]}',
    "odd heads": '{"num_attention_heads": "three", "layer_norm_eps": "small"}',
    "odd epsilon": '{"layer_norm_eps": [1e-6]}',
    "odd normalize": '{"do_normalize": "no", "hidden_act": ["gelu"]}',
    "control": '{"hidden_act": "\\u001b[31m\\n\\n"}',
    "deep": "[" * 100_000,
    "bytes": "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"),
}
