"""The images of a source that a run can use: unreadable ones are an error, or they are left out."""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from flcl import settings
from flcl.data import base, images
from flcl.data.encoded import check
from flcl.data.encoded.check import Checked, Progress, silent
from flcl.data.encoded.lazy import EncodedImages

_NEW = "repair or remove them, or set data.bad_images=skip to leave unreadable images out"
_BEGUN = (
    "a run that has begun needs the same images: bring them back, or begin again in another workdir"
)
_NAMED = 50  # images in one error


def checked(
    source: base.Source,
    data: settings.Data,
    threads: int,
    skipped: Sequence[str] | None = None,
    progress: Progress = silent,
) -> base.Source:
    """A source whose images were all checked, and are decoded if they are kept in memory.

    The arguments and the errors are those of `sources.load_source`. The notes of the source say how
    many images are left out, and how many test images are also training images.
    """
    before = set(skipped or ())
    halves = [_without_names(half, before) for half in (source.train, source.test)]
    results = [_checked(half, data, threads, progress) for half in halves]
    # Before a run begins it is free to leave images out; later that would be another run.
    leaves_out = data.bad_images == "skip" and skipped is None
    faults = {
        result.name(row): reason
        for result in results
        for row, reason in result.reasons.items()
        if not (leaves_out and row in result.unreadable)
    }
    if faults:
        total = sum(len(half.labels) for half in halves)
        raise _refused(source.name, total, faults, _NEW if skipped is None else _BEGUN)
    left_out = [*(skipped or ()), *(r.name(row) for r in results for row in sorted(r.unreadable))]
    notes = [f"{_images(len(left_out), 'unreadable image')} left out"] if left_out else []
    return dataclasses.replace(
        source,
        train=_without(results[0].split, results[0].unreadable),
        test=_without(results[1].split, results[1].unreadable),
        notes=(*source.notes, *notes, *_on_both_sides(*results)),
        skipped=tuple(left_out) if data.bad_images == "skip" else None,
    )


def _checked(split: base.Split, data: settings.Data, threads: int, progress: Progress) -> Checked:
    if isinstance(split.images, EncodedImages):
        return check.check(split, data, threads, progress)
    if isinstance(split.images, images.LazyImages):
        kept = images.keep(split.images, data.memory_gib, threads)
        split = dataclasses.replace(split, images=kept)
    return Checked(split)


def _without_names(split: base.Split, names: Collection[str]) -> base.Split:
    """A split without the images that have one of `names`."""
    if not names or not isinstance(split.images, EncodedImages):
        return split
    return _without(split, [n for n, name in enumerate(split.images.names) if name in names])


def _without(split: base.Split, rows: Collection[int]) -> base.Split:
    """A split without the images `rows`; itself if there are none."""
    if not rows:
        return split
    kept = np.delete(np.arange(len(split.labels)), sorted(rows))
    lazy = isinstance(split.images, images.LazyImages)
    pixels = split.images.take(kept) if lazy else split.images[kept]
    return base.Split(pixels, split.labels[kept], split.domains[kept])


def _on_both_sides(train: Checked, test: Checked) -> list[str]:
    """A note about test images whose content equals that of a training image."""
    rows = check.equal_rows(train, test)
    if not rows:
        return []
    return [
        f"{_images(len(rows), 'test image')} also in the training set, with the same content, "
        f"such as {test.name(rows[0])}"
    ]


def _images(count: int, what: str) -> str:
    return f"1 {what} is" if count == 1 else f"{count:,} {what}s are"


def _refused(where: str, total: int, faults: dict[str, str], advice: str) -> ValueError:
    """The error for images that are not sound: `faults` has the reasons by name."""
    named = ", ".join([f"{name} ({reason})" for name, reason in faults.items()][:_NAMED])
    more = f" and {len(faults) - _NAMED:,} more" if len(faults) > _NAMED else ""
    return ValueError(
        f"{where}: {len(faults):,} of {total:,} images cannot be used: {named}{more}; {advice}"
    )
