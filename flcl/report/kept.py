"""Pictures that a run stored: read only if they are the ones that the run wrote."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from flcl import files
from flcl.storage import npz
from flcl.storage.seals import Seals, digest

OVER_TASKS = "samples/over_tasks.png"
BEFORE_AFTER = "samples/before_after.png"

_ADVICE = "repeat the command that trained the run, which makes it again"
_KINDS = {"images": npz.Kind("u", 5), "labels": npz.Kind("iu", 1)}


def samples_name(task: int, suffix: str) -> str:
    """The file of the samples after a task, inside the workdir; suffix: `.npz` or `.png`."""
    return f"samples/task_{task:02d}{suffix}"


def read_sealed(workdir: Path, name: str) -> tuple[bytes, bool]:
    """The content of a file, and whether the run is known to have written it.

    Raises `ValueError` if the run has written another one, and `FileNotFoundError`.
    """
    path = Path(workdir) / name
    content = files.read_bytes(path)
    known = Seals(workdir).holds(name, digest(content))
    if known is False:
        raise ValueError(f"{path} has changed since the run wrote it: {_ADVICE}")
    return content, bool(known)


def is_good(workdir: Path, name: str, read: Callable[[], object]) -> bool:
    """Whether a file is there and is good; `read` looks into one whose writer is not known."""
    try:
        _, known = read_sealed(workdir, name)
        if not known:
            read()
    except (FileNotFoundError, ValueError):
        return False
    return True


def read_samples(workdir: Path, task: int, classes: int) -> dict[int, np.ndarray]:
    """Samples uint8 [n, H, W, C] by label after a task.

    classes: the number of labels. Raises `ValueError` for a damaged file or another one in its
    place, and `FileNotFoundError`.
    """
    name = samples_name(task, ".npz")
    path = workdir / name
    arrays = npz.from_bytes(read_sealed(workdir, name)[0], path, _KINDS)
    images, labels = arrays["images"], arrays["labels"]
    good = images.dtype == np.uint8 and images.size and images.shape[-1] in (1, 3)
    if not good or len(images) != len(labels) or not set(labels.tolist()) <= set(range(classes)):
        raise ValueError(f"{path} does not have samples of {classes} classes: {_ADVICE}")
    return dict(zip(labels.tolist(), images, strict=True))


def read_picture(workdir: Path, name: str) -> bytes:
    """The content of a PNG file; raises as `read_samples` does."""
    content, known = read_sealed(workdir, name)
    path = workdir / name
    if not known:
        wrong = f"{path} is damaged: {_ADVICE}"
        with (
            files.reading(path, lambda _: ValueError(wrong)),
            Image.open(io.BytesIO(content), formats=["PNG"]) as picture,
        ):
            picture.load()
    return content
