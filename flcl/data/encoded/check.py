"""Reads all images of a source once before training, so that no unreadable one stops it later."""

import concurrent.futures
import dataclasses
from collections.abc import Callable

import numpy as np

from flcl import files, settings
from flcl.data import base, images
from flcl.data.encoded import opening
from flcl.data.encoded.lazy import EncodedImages
from flcl.data.encoded.remembered import HEADER, Remembered, hashed

_CHUNK = 32  # images per job: a stop waits for the jobs that have begun

# Starts a bar: (text, number of items) -> a function of the number of finished items.
Progress = Callable[[str, int], Callable[[int], object]]


def silent(text: str, total: int) -> Callable[[int], object]:
    """A `Progress` that shows nothing."""
    del text, total
    return lambda done: None


@dataclasses.dataclass
class Checked:
    """The images of a split after the check.

    Attributes:
      split: the images; decoded if they are kept in memory.
      reasons: why an image is not sound, by its row.
      unreadable: the rows among them whose content is damaged; others have a wrong size.
      digests: a digest of the content of each image, uint64 [N]; 0 or `HEADER` = it was not read.
        None = the images have no encoded content.
      lazy: the images before they were decoded; None = as for `digests`.
    """

    split: base.Split
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)
    unreadable: set[int] = dataclasses.field(default_factory=set)
    digests: np.ndarray | None = None
    lazy: EncodedImages | None = None

    def name(self, row: int) -> str:
        """The name of an image in the source."""
        return self.lazy.encoded.names[int(self.lazy.positions[row])]


def check(split: base.Split, data: settings.Data, threads: int, progress: Progress) -> Checked:
    """Decodes all images that are kept in memory, and checks all others as `data.verify` says.

    `threads` threads share the work. What was checked and has not changed is not read again. An
    error that may pass, such as a disk that does not answer, is raised at once as `OSError`.
    """
    lazy = split.images
    assert isinstance(lazy, EncodedImages)
    kept = None
    if lazy.nbytes <= data.memory_gib * 2**30:
        kept = np.empty(lazy.shape, np.uint8)
    digests = np.zeros(len(lazy), np.uint64)
    if kept is None and data.verify == "off":
        return Checked(split, digests=digests, lazy=lazy)
    # Images that are kept are decoded in any case, so there is nothing to remember.
    remembered = None if kept is not None else Remembered(lazy.encoded, data)
    work = _Work(lazy, data, kept, remembered, digests)
    advance = progress("reading images" if remembered is None else "checking images", len(lazy))
    pool = concurrent.futures.ThreadPoolExecutor(max(threads, 1), "check")
    try:
        starts = range(0, len(lazy), _CHUNK)
        for start, _ in zip(starts, pool.map(work.chunk, starts), strict=True):
            advance(min(start + _CHUNK, len(lazy)))
    finally:
        # After an error or a stop, jobs that have not started are not worth their time.
        pool.shutdown(cancel_futures=True)
        if remembered is not None:
            remembered.store(work.keys, digests)
    done = split if kept is None else dataclasses.replace(split, images=kept)
    reasons = dict(sorted(work.reasons.items()))
    return Checked(done, reasons, work.unreadable, digests, lazy)


class _Work:
    """The check of one split; its threads fill `keys`, `digests`, `reasons` and perhaps `kept`."""

    def __init__(self, lazy: EncodedImages, data: settings.Data, kept, remembered, digests):
        self.lazy, self.encoded, self.data, self.kept = lazy, lazy.encoded, data, kept
        self.remembered, self.digests = remembered, digests
        self.keys = np.zeros(len(lazy), np.uint64)
        self.reasons: dict[int, str] = {}
        self.unreadable: set[int] = set()

    def chunk(self, start: int) -> None:
        """Looks at `_CHUNK` images from row `start` on."""
        waiting = list(range(start, min(start + _CHUNK, len(self.lazy))))
        look = self._look if self.remembered is None else self._look_if_new
        while waiting:
            # Until the first error, which ends the reader; then again from the next image on.
            try:
                look(waiting)
            except (OSError, ValueError) as error:
                self._note(waiting.pop(0), error)

    def _look_if_new(self, waiting: list[int]) -> None:
        """As `_look`, for images that are not remembered."""
        headers = self.data.verify == "headers"
        while waiting:
            row = waiting[0]
            position = self._position(row)
            self.keys[row] = self.remembered.key(position)
            known = self.remembered.digests(self.keys[row : row + 1])[0]
            if known > HEADER or (known and headers):
                self.digests[row] = known
            elif headers:
                with self.encoded.open(position) as file, images.readable(self._name(row)):
                    opening.check_header(file)
                self.digests[row] = HEADER
            else:
                self._look([row])
            waiting.pop(0)

    def _look(self, waiting: list[int]) -> None:
        """Decodes images and takes each out of `waiting`."""
        contents = self.encoded.read([self._position(row) for row in waiting])
        while waiting:
            row, content = waiting[0], next(contents)
            image = self.lazy.decode(self._position(row), content)
            if self.kept is not None:
                self.kept[row] = image
            self.digests[row] = hashed(content)
            waiting.pop(0)

    def _note(self, row: int, error: OSError | ValueError) -> None:
        """Keeps the reason of an image that is not sound; raises an error that may pass."""
        if isinstance(error, OSError):
            path = error.filename or self._name(row)
            if (passing := files.may_pass(error, path)) is not None:
                raise passing from error
            self.reasons[row] = error.strerror or str(error)
        elif isinstance(error, images.UnreadableError):
            self.reasons[row] = error.reason
        else:  # a sound image of another size
            self.reasons[row] = str(error).removeprefix(f"{self.encoded.where}: ")
            return
        self.unreadable.add(row)

    def _position(self, row: int) -> int:
        return int(self.lazy.positions[row])

    def _name(self, row: int) -> str:
        return self.encoded.names[self._position(row)]


def equal_rows(train: Checked, test: Checked) -> list[int]:
    """The rows of test images whose content is equal to that of a training image."""
    if train.digests is None or test.digests is None:
        return []
    read = test.digests > HEADER
    return np.flatnonzero(read & np.isin(test.digests, train.digests)).tolist()
