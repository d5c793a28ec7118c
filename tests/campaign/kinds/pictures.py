"""Pictures of users for a classifier, in every form."""

import io
import os

import numpy as np
from PIL import Image

from campaign.kinds.inputs import bomb
from campaign.trial import ACCEPTED, LINE, Fault, Trial, captured, little_memory


def _encoded(kind: str = "PNG", mode: str = "RGB", size=(9, 7)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def _pictures(trial: Trial) -> dict[str, tuple]:
    """Name -> (argument of `classify`, the number of pictures, or None = refused)."""
    eight = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    file = trial.folder / "picture.png"
    file.write_bytes(_encoded())
    fifo = trial.folder / "pipe.png"
    os.mkfifo(fifo)
    return {
        "[H,W]": (eight[..., 0], 1),
        "[H,W,3]": (eight, 1),
        "[H,W,4]": (np.dstack([eight, eight[..., 0]]), 1),
        "[H,W,2]": (eight[..., :2], 1),
        "[H,W,1]": (eight[..., :1], 1),
        "[N,H,W,3]": (np.stack([eight] * 5), 5),
        "[N,H,W]": (np.stack([eight[..., 0]] * 5), 5),
        "[3,H,W]": (np.moveaxis(eight, -1, 0), None),
        "[N,3,H,W]": (np.moveaxis(np.stack([eight] * 5), -1, 1), None),
        "float in 0..1": (eight / 255, None),
        "float NaN": (eight * np.nan, None),
        "int64": (eight.astype(np.int64) * 1000, None),
        "bool": (eight > 5, None),
        "object": (eight.astype(object), None),
        "text array": (np.array(["a", "b"]), None),
        "empty": (eight[:0], None),
        "no pictures": ([], None),
        "[N,0,W,3]": (np.zeros((2, 0, 8, 3), np.uint8), None),
        "five axes": (eight[None, None], None),
        "a number": (3, None),
        "None": (None, None),
        "a dictionary": ({"a": eight}, None),
        "bytes": (_encoded(), 1),
        "list of bytes": ([_encoded(), _encoded("JPEG")], 2),
        "list of arrays": ([eight, np.dstack([eight, eight[..., 0]]), eight[..., 0]], 3),
        "bad bytes": (b"no picture", None),
        "cut bytes": (_encoded()[:30], None),
        "path": (str(file), 1),
        "paths": ([file, str(file)], 2),
        "a pipe": ([fifo], None),
        "a folder": ([trial.folder], None),
        "missing": ([trial.folder / "missing.png"], None),
        "text": ("nothing", None),
        "picture": (Image.new("RGB", (9, 9)), 1),
        "palette": (
            [Image.new("P", (9, 9)), Image.new("LA", (3, 30)), Image.new("I;16", (4, 4))],
            3,
        ),
        "one pixel": (Image.new("RGB", (1, 1)), 1),
        "nested": ([[eight]], None),
        "mixed": ([eight, None], None),
        "bomb": (bomb(), None),
        "generator": ((eight for _ in range(2)), 2),
        "masked": (np.ma.masked_array(eight, eight > 3), 1),
        "negative strides": (eight[::-1], 1),
        "big endian": (eight.astype(">u2"), None),
    }


_EITHER = (
    "bool",
    "int64",
    "text",
    "generator",
    "masked",
    "big endian",
    "palette",
    "path",
    "nested",
)


def array(trial: Trial) -> str:
    """Pictures for a classifier in every form: the right number of answers, or one line."""
    import flcl

    pictures = _pictures(trial)
    name = trial.pick(sorted(pictures))
    given, count = pictures[name]
    trial.note(name)
    run = flcl.open_run(trial.prepared.at("fmlora", "finished"))
    try:
        with captured() as texts, little_memory():
            answers = run.classify(given)
    except (ValueError, OSError) as error:
        if count is not None and name not in _EITHER:
            raise Fault(f"should give {count} answers: {error}") from error
        lines = [line for line in str(error).splitlines() if line.strip()]
        if len(lines) != 1 or len(lines[0]) > 600:
            raise Fault(f"{len(lines)} lines: {str(error)[:1000]!r}") from error
        return LINE
    if texts()[1].strip():
        raise Fault(f"noise: {texts()[1][-1000:]}")
    if count is None and name not in _EITHER:
        raise Fault(f"was accepted with {len(answers.classes)} answers")
    if count is not None and len(answers.classes) != count:
        raise Fault(f"{len(answers.classes)} answers for {count} pictures")
    return ACCEPTED
