"""Hostile keys, config files, arrays, archives and pictures: read rightly, or one line."""

import functools
import io
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import tiny

from campaign.prepared import METHODS
from campaign.trial import (
    ACCEPTED,
    LINE,
    Began,
    Fault,
    Trial,
    command,
    little_memory,
    one_line,
    refusing_to_train,
)


def begins(trial: Trial, method: str, *words):
    """A training command: the experiment that would begin, or the command that has ended."""
    with refusing_to_train(), little_memory():
        try:
            return trial.prepared.train(method, trial.workdir, *words)
        except Began as began:
            return began.experiment


def ending(done, *names: str, refused: bool | None = None) -> str:
    """The ending of `begins`; `refused` says what is right if only one is."""
    if hasattr(done, "setup"):
        if refused:
            raise Fault("this input was accepted, it should be refused")
        return ACCEPTED
    if refused is False:
        raise Fault(f"this input should be read\n{done.told()}")
    return one_line(done, *names)


_VALUES = (
    "nan", "inf", "-inf", "-1", "0", "-0", "-0.0", "1e400", "-1e308", "1e308", "1e-320", "1e9",
    "9" * 20, "9" * 400, str(2**31), str(2**63), str(-(2**63)), str(2**64), "", " ", "()", "(1,",
    "(q,v)", "[1]", "{}", "None", "null", "True", "'x'", "1.5", "0x10", "1_000", "\u0661",
    "\u00e9" * 3, "a" * 5000, "\x1b[31mred", "../..", "~", "~nobody/x", "gs://bucket/x", "s3://b",
    "1,2,3", ",", "1,,2", "0-3", "3-0", "0-99999999999", "-", "seed:", "seed:-1", "natural", "dil",
    "npz:", "npz:/dev/zero", "npz:/dev/stdin", "folder:/proc", "folder:/", "tfds:../x", "hub:",
    "off",     "/dev/null", "/", ".", "\u202e", "%s%n", "$(touch x)", "cil", "0.0001", "100000000",
)  # fmt: skip


def value(trial: Trial) -> str:
    """One key of the config, or the workdir, gets a hostile value."""
    from flcl.settings import bridge

    method, given = trial.pick(METHODS), trial.pick(_VALUES)
    keys = [name for name, _ in bridge.keys(bridge.run_class(method))]
    key = trial.pick(keys)
    way = trial.pick(("key", "key", "key", "key", "misspelt", "workdir"))
    if way == "misspelt":
        place = trial.random.randrange(len(key))
        key = key[:place] + key[place + 1 :]
        if key in keys or not key:
            return LINE
    words = [f"--config.{key}={given}"]
    if way == "workdir":
        given = trial.pick((
            "", "gs://bucket/x", "s3://b/x", "/dev/null", "/dev/null/x", "/proc/x", "\x00",
            "a" * 300, "~nobody-here/x", f"{trial.prepared.data}", "\x1b[31m",
            "/sys/x",
        ))  # fmt: skip
        words, key = [f"--workdir={given}"], "workdir"
    trial.note(f"{method} {way}: {words[0][:200]!r}")
    if "\x00" in words[0]:  # no shell can pass it
        return LINE
    os.chdir(trial.folder)
    done = begins(trial, method, *words)
    # Values that do not fit each other may be told by the name of the other key; a source that is
    # not there is told by its value.
    last = key.rpartition(".")[2]
    if last == "source" and given:
        last = f"{given}:"
    return ending(
        done, key, last, "config.", "model.", "data.", "stream.", "train.", "lora.", "rank."
    )


_CONFIGS = {
    "a number": "def get_config(arg=''):\n    return 3\n",
    "None": "def get_config(arg=''):\n    pass\n",
    "a dictionary": "def get_config(arg=''):\n    return {'method': 'funlora'}\n",
    "an empty config": (
        "import ml_collections\ndef get_config(arg=''):\n    return ml_collections.ConfigDict()\n"
    ),
    "a module that raises": "raise RuntimeError('no\\nway')\n",
    "a KeyError": "def get_config(arg=''):\n    return {}['missing']\n",
    "a ZeroDivisionError": "def get_config(arg=''):\n    return 1 / 0\n",
    "an empty exception": "def get_config(arg=''):\n    raise Exception\n",
    "an own exception": (
        "class E(Exception): pass\ndef get_config(arg=''):\n    raise E('two\\nlines\\x1b[31m')\n"
    ),
    "an assertion": "def get_config(arg=''):\n    assert False\n",
    "an OSError": "def get_config(arg=''):\n    return open('missing.txt')\n",
    "endless recursion": "def get_config(arg=''):\n    return get_config(arg)\n",
    "an exit": "import sys\nsys.exit(0)\n",
    "an exit inside": "import sys\ndef get_config(arg=''):\n    sys.exit(3)\n",
    "no function": "get_config = 3\n",
    "nothing": "",
    "a syntax error": "def get_config(:\n",
    "a null byte": "x = '\0'\n",
    "two needed arguments": "def get_config(one, two):\n    return one\n",
    "a missing import": "import no_such_module_here\n",
    "a generator": "def get_config(arg=''):\n    yield 3\n",
    "a class": "class get_config:\n    pass\n",
    "a wrong key": (
        "from flcl.settings import bridge\ndef get_config(arg=''):\n"
        "    c = bridge.defaults('funlora')\n    c.unknown = 3\n    return c\n"
    ),
    "a wrong type": (
        "from flcl.settings import bridge\ndef get_config(arg=''):\n"
        "    c = bridge.defaults('funlora')"
        "\n    with c.ignore_type():\n        c.model = 3\n    return c\n"
    ),
    "a method that is none": (
        "from flcl.settings import bridge\ndef get_config(arg=''):\n"
        "    c = bridge.defaults('funlora')"
        "\n    with c.ignore_type():\n        c.method = ['x']\n    return c\n"
    ),
}


def config_file(trial: Trial) -> str:
    """A config file that is wrong in some way, or is no file."""
    name = trial.pick(
        [*_CONFIGS, "bytes", "a folder", "a pipe", "a text", "latin", "nowhere", "argument"]
    )
    path = trial.folder / "odd.py"
    spec = str(path)
    if name in _CONFIGS:
        path.write_text(_CONFIGS[name])
    elif name == "bytes":
        path.write_bytes(trial.random.randbytes(300))
    elif name == "latin":
        path.write_bytes("# \u00e9\nx = 1\n".encode("latin-1"))
    elif name == "a folder":
        path.mkdir()
    elif name == "a pipe":
        os.mkfifo(path)
    elif name == "a text":
        path = path.with_suffix(".txt")
        path.write_text(_CONFIGS["a number"])
        spec = str(path)
    elif name == "argument":
        path.write_text(_CONFIGS["a number"].replace("arg=''", ""))
        spec = f"{path}:{trial.pick(('x', ':', 'a:b', ' '))}"
    program = trial.pick(("train", "describe"))
    trial.note(f"{name}, by {program}")
    workdir = [f"--workdir={trial.workdir}"] if program == "train" else []
    with refusing_to_train(), little_memory():
        return one_line(command(program, f"--config={spec}", *workdir), path.name)


def _arrays(trial: Trial) -> dict[str, np.ndarray]:
    with np.load(tiny.write_data(trial.folder / "plain.npz")) as file:
        return dict(file)


# What may be done to one entry of an npz source.
_CHANGES = {
    "gone": lambda a, _: None,
    "empty": lambda a, _: a[:0],
    "one fewer": lambda a, _: a[:-1],
    "a scalar": lambda a, _: np.array(3),
    "text": lambda a, _: a.astype("U9"),
    "objects": lambda a, _: a.astype(object),
    "float NaN": lambda a, _: np.full(a.shape, np.nan),
    "float": lambda a, _: a.astype(np.float32) / 255 if a.dtype.kind in "iu" else a,
    "complex": lambda a, _: a.astype(np.complex64) if a.dtype.kind in "iu" else a,
    "bool": lambda a, _: a.astype(bool) if a.dtype.kind in "iu" else a,
    "uint8": lambda a, _: a.astype(np.uint8) if a.dtype.kind in "iu" else a,
    "uint64": lambda a, _: a.astype(np.uint64) if a.dtype.kind in "iu" else a,
    "big endian": lambda a, _: a.astype(a.dtype.newbyteorder(">")),
    "negative": lambda a, _: -1 - a.astype(np.int64) if a.dtype.kind in "iu" else a,
    "from 1": lambda a, _: a + 1 if a.dtype.kind in "iu" else a,
    "3e9": lambda a, _: a.astype(np.int64) + 3 * 10**9 if a.dtype.kind in "iu" else a,
    "2**63": lambda a, _: a.astype(np.uint64) + np.uint64(2**63) if a.dtype.kind in "iu" else a,
    "a column": lambda a, _: a[..., None],
    "a row": lambda a, _: a[None],
    "flat": lambda a, _: a.reshape(-1),
    "one-hot": lambda a, _: np.eye(300)[a % 300] if a.ndim == 1 and a.dtype.kind in "iu" else a,
    "five axes": lambda a, _: a[..., None, None],
    "a date": lambda a, _: np.zeros(a.shape, "M8[s]"),
    "a record": lambda a, _: np.zeros(a.shape, [("a", "i4"), ("b", "U3")]),
    "all the same": lambda a, _: np.broadcast_to(a[:1], a.shape).copy() if a.ndim else a,
}  # fmt: skip
_FILES = (
    "cut",
    "flip",
    "garbage",
    "empty",
    "pipe",
    "folder",
    "device",
    "zip of text",
    "zip bomb",
    "npy",
)


def source(trial: Trial) -> str:
    """An npz source with one odd entry, or a file that is none."""
    arrays, path = _arrays(trial), trial.folder / "odd.npz"
    way = trial.pick(("entry", "entry", "entry", "file"))
    if way == "entry":
        name, change = trial.pick(sorted(arrays)), trial.pick(sorted(_CHANGES))
        if trial.pick((True, False)) and change not in ("gone", "text"):
            arrays.pop("class_names")
            name = name if name in arrays else "train_labels"
        trial.note(f"{name}: {change}; names: {'class_names' in arrays}")
        new = _CHANGES[change](arrays.pop(name), trial.random)
        arrays |= {} if new is None else {name: new}
        np.savez(path, **arrays)
    else:
        change = trial.pick(_FILES)
        trial.note(change)
        np.savez(path, **arrays)
        path = odd_file(path, change, trial.random)
    experiment = begins(trial, "funlora", f"--config.data.source=npz:{path}")
    if hasattr(experiment, "setup") and not len(experiment.setup.data.source.train.labels):
        raise Fault("a source without training images was accepted")
    return ending(experiment, str(path), path.name)


def odd_file(path, change: str, random):
    """Damages a file of data or weights, or puts something else in its place; returns its path."""
    content = path.read_bytes()
    if change in ("pipe", "folder", "device"):
        path.unlink()
        if change == "pipe":
            os.mkfifo(path)
        elif change == "folder":
            path.mkdir()
        else:
            path.symlink_to(random.choice(("/dev/zero", "/dev/full", "/dev/random")))
        return path
    if change == "zip bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("train_images", "train_labels", "test_images", "test_labels"):
                head = io.BytesIO()
                kind = {"descr": "|u1", "fortran_order": False, "shape": (2**31, 28, 28, 1)}
                np.lib.format.write_array_header_1_0(head, kind)
                archive.writestr(f"{name}.npy", head.getvalue() + bytes(2**20))
        return path
    if change == "zip of text":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("train_images.npy", "no array")
    elif change == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif change == "pointer":
        path.write_text(
            "version https:" + "//git-lfs.github.com/spec/v1\n"
            f"oid sha256:{'0' * 64}\nsize {len(content)}\n"
        )
    elif change == "page":
        path.write_text("<!DOCTYPE html><html><body>404</body></html>")
    else:
        new = bytearray(content)
        new[random.randrange(len(new))] ^= 1 << random.randrange(8)
        cut = content[: random.randrange(len(content))]
        garbage = random.randbytes(5000)
        path.write_bytes({"cut": cut, "flip": bytes(new), "garbage": garbage, "empty": b""}[change])
    return path


class _Call:
    """A pickle that calls a function."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def _dtype(text: str) -> bytes:
    """The pickle of an array of a type that the bytes were never meant for."""
    array = np.zeros(4, np.uint8)
    content = pickle.dumps(array, protocol=2)
    code = struct.pack("<I", 2) + b"u1"
    return content.replace(b"X" + code, b"X" + struct.pack("<I", len(text)) + text.encode(), 1)


def _pickles(trial: Trial) -> dict[str, bytes]:
    touch = functools.partial(_Call, os.mkdir)
    plain = np.zeros((20, 3072), np.uint8)
    labels = list(range(10)) * 2

    def batch(**changed) -> bytes:
        return pickle.dumps({"data": plain, "labels": labels, **changed}, protocol=2)

    head = pickle.dumps({"labels": labels}, protocol=2)[:-2]  # without SETITEM... and STOP
    return {
        "a call": pickle.dumps(touch(str(trial.folder / "ran")), protocol=2),
        "an import": b"cos\nsystem\n(S'exit 1'\ntR.",
        "objects": batch(data=np.array([[object.__name__]] * 20, object)),
        "dtype O": _dtype("O8"),
        "dtype V": _dtype("V9"),
        "dtype M8": _dtype("M8"),
        "dtype list": _dtype("i4,O"),
        "state on a dtype": b"cnumpy\ndtype\n(S'O8'\ntR(I3\nS'|'\nNNNI-1\nI-1\nI63\ntb.",
        "few pixels": batch(data=plain[:, :100]),
        "floats": batch(data=plain.astype(np.float64) + np.nan),
        "huge labels": batch(labels=[2**63] * 20),
        "negative labels": batch(labels=[-1] * 20),
        "text labels": batch(labels=["x"] * 20),
        "no labels": batch(labels=None),
        "nested": pickle.dumps([[[]]], protocol=2),
        "a number": pickle.dumps(3, protocol=2),
        "truncated": head,
        "garbage": trial.random.randbytes(400),
        "memo": b"\x80\x02h\xff.",
        "long string": b"\x80\x02X\xff\xff\xff\x7fabc.",
        "deep": b"(" * 100_000 + b".",
    }


_TORN = ("cut", "flip", "garbage", "empty", "pipe", "folder", "device")


def archive(trial: Trial) -> str:
    """An official archive with a forged member, a link, a bomb or damage."""
    folder = trial.folder / "archives"
    folder.mkdir()
    path = folder / "cifar-10-python.tar.gz"
    pickles = _pickles(trial)
    way = trial.pick([*pickles, *pickles, *_TORN, "link", "outside", "bomb"])
    trial.note(way)
    forged = trial.pick(("data_batch_1", "data_batch_4", "test_batch", "batches.meta"))
    _cifar(path, {forged: pickles[way]} if way in pickles else {}, way)
    if way in _TORN:
        odd_file(path, way, trial.random)
    words = [
        "--config.data.source=tfds:cifar10",
        f"--config.data.manual_dir={folder}",
        f"--config.data.tfds_dir={trial.folder / 'tfds'}",
    ]
    done = begins(trial, "fmlora", *words)
    if (trial.folder / "ran").exists():
        raise Fault("the archive ran code")
    refused = None if way in ("outside", "flip", "link", "floats") else True
    return ending(done, path.name, "cifar10", refused=refused)


def _cifar(path, forged: dict[str, bytes], way: str) -> None:
    """A tiny archive in the official layout, with other bytes for the members `forged`."""
    plain = {"data": np.zeros((20, 3072), np.uint8), "labels": list(range(10)) * 2}
    members = {f"data_batch_{n}": pickle.dumps(plain, protocol=2) for n in range(1, 6)}
    members["test_batch"] = members["data_batch_1"]
    members["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")}, protocol=2)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {**members, **forged}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            if way == "link" and name == "data_batch_2":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            if way == "bomb" and name == "data_batch_2":
                # 8 GiB are announced; the archive ends after 64 MiB of zeros.
                member.size = 2**33
                tar.fileobj.write(member.tobuf(tar.format, tar.encoding, tar.errors))
                for _ in range(64):
                    tar.fileobj.write(bytes(2**20))
                return
            tar.addfile(member, io.BytesIO(content))
        if way == "outside":
            member = tarfile.TarInfo("../../outside.txt")
            tar.addfile(member, io.BytesIO(b""))


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
