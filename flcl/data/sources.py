"""The sources of images. A new source is one function and one line in `SOURCES`."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from flcl import hints, settings
from flcl.data import base, digest, subset, tfds_source
from flcl.data.arrays import embedded, npz
from flcl.data.base import Begun, Source, Split, check_classes
from flcl.data.encoded import usable
from flcl.data.encoded.check import Progress, silent
from flcl.data.folders import source as folders
from flcl.storage import paths

__all__ = [
    "SOURCES",
    "Begun",
    "Source",
    "Split",
    "load_labelled",
    "load_source",
    "load_unlabelled",
]

# Accepted form of `data.source` -> loader(text after the colon, settings); in brackets is what may
# be left out, and the text is then empty. Loaders decode nothing: they return arrays that are ready
# to use, or `LazyImages`.
SOURCES: dict[str, Callable[[str, settings.Data], Source]] = {
    "digits[:CLASSES]": embedded.load_digits,
    "fashion16[:CLASSES]": embedded.load_fashion16,
    "folder:PATH": folders.load_folder,
    "npz:PATH": npz.load_npz,
    "tfds:NAME": tfds_source.load_tfds,
}


def load_source(
    data: settings.Data,
    *,
    threads: int = 4,
    begun: Begun | None = None,
    progress: Progress = silent,
) -> Source:
    """Training and test images of `data.source`, uint8 [N, image_size, image_size, channels].

    At most `data.train_per_class` and `data.test_per_class` images of each class and domain are
    used (see `subset.per_class`). `threads` threads decode them. They stay in memory if a split
    needs at most `data.memory_gib` GiB; otherwise `Split.images` decodes them on demand, after all
    were checked as `data.verify` says. Images that are unreadable are an error that names all of
    them, or they are left out if `data.bad_images` is "skip".

    begun: how a run that has begun chose its images; an unreadable image that it does not leave out
    is then an error. None = the run has not begun. progress: shows how many images are read.

    Raises `ValueError` for an unknown source, for a class without images, for an unreadable image
    and for all errors of the source; `OSError` for a file that cannot be read now.
    """
    loader, argument = _loader("data.source", data.source)
    if loader is folders.load_folder:
        source = folders.load_folder(argument, data, begun)
    else:
        source = loader(argument, data)
    source = check_classes(source)
    source = dataclasses.replace(
        source,
        train=subset.per_class(source.train, data.train_per_class, "train"),
        test=subset.per_class(source.test, data.test_per_class, "test"),
    )
    # Again, because a class may have had no other images than those that are left out.
    skipped = None if begun is None else begun.skipped
    return check_classes(usable.checked(source, data, threads, skipped, progress))


def load_labelled(
    spec: str,
    data: settings.Data,
    class_names: Sequence[str],
    *,
    threads: int = 4,
    say: Callable[[str], object] = lambda text: None,
) -> tuple[Split, tuple[str, ...]]:
    """Images for the evaluation of a classifier, and the names of their domains (perhaps none).

    The labels of the images are positions in `class_names`; their domains are positions in the
    names of the domains.

    spec: a source in the form of `data.source`, which is itself not read. folder:PATH gives all
    images of its class folders, or only those of its test set if it has a split; other sources
    give their test set. `data` gives size and channels; `test_per_class` is not used. Classes are
    matched by name, and some may be missing. say: is called with one line about what was found.
    Raises `ValueError` for a class that is not in `class_names`, if there is no image, and for the
    errors of `load_source`.
    """
    loader, argument = _loader("data", spec)
    if loader is folders.load_folder:
        loader = folders.load_labelled
    source = loader(argument, data)
    # Only the test images are read.
    nothing = base.make_split(np.zeros((0, 1, 1, 1), np.uint8), [])
    source = usable.checked(dataclasses.replace(source, train=nothing), data, threads)
    split = source.test
    if not len(split.labels):
        raise ValueError(f"{spec}: holds no images to evaluate on; add some to its class folders")
    labels = _translated(spec, source.class_names, tuple(class_names))[split.labels]
    notes = "".join(f"; {note}" for note in source.notes)
    say(f"{spec}: {len(np.unique(labels))} classes, {len(labels):,} images{notes}")
    return dataclasses.replace(split, labels=labels), source.domain_names


def load_unlabelled(
    spec: str, data: settings.Data, *, threads: int = 4, progress: Progress = silent
) -> tuple[Split, str]:
    """Images that are used without their labels, in the shape of `data`, and their SHA-256.

    spec: folder:PATH with pictures and no folders in it gives all of them; any other source in the
    form of `data.source`, which is itself not read, gives all its training images. Unreadable
    images are an error or left out, as `data.bad_images` says. Raises `ValueError` for the errors
    of `load_source`, beginning with the key `drift.images`.
    """
    key = "drift.images"
    loader, argument = _loader(key, spec)
    nothing = base.make_split(np.zeros((0, 1, 1, 1), np.uint8), [])
    try:
        pictures = None
        if loader is folders.load_folder:
            pictures = folders.load_pictures(argument, data)
        source = Source(spec, pictures, nothing, ()) if pictures else loader(argument, data)
        source, every = dataclasses.replace(source, test=nothing), source.train.images
        train = usable.checked(source, data, threads, None, progress).train
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if not len(train.labels):
        raise ValueError(f"{key}={spec!r}: no image of it can be used")
    return train, digest.sha256(every)


def _loader(key: str, spec: str) -> tuple[Callable[[str, settings.Data], Source], str]:
    """The loader of `spec` and the text after its colon; `key` is for messages."""
    kind, colon, argument = spec.partition(":")
    forms = {form.partition(":")[0].removesuffix("["): form for form in SOURCES}
    form = forms.get(kind)
    # "folder" without a path and "digits:" without a class are refused like an unknown word.
    if form is None or not (argument or ("[" in form and not colon)):
        raise ValueError(
            f"{key}={spec!r}: accepted are {', '.join(SOURCES)}."
            f"{hints.did_you_mean(kind, list(forms)) if form is None else ''}"
        )
    if form.endswith(":PATH"):
        paths.local(argument, key)  # an address is refused with its reason
    return SOURCES[form], argument


def _translated(spec: str, names: tuple[str, ...], known: tuple[str, ...]) -> np.ndarray:
    """The position of each of `names` in `known`, int32 [len(names)]."""
    if names == known:  # also if two classes have the same name
        return np.arange(len(names), dtype=np.int32)
    for name in names:
        if name not in known:
            some = ", ".join(known[:5]) + (" and so on" if len(known) > 5 else "")
            raise ValueError(
                f"{spec}: class {name!r} is not one of the {len(known)} learned classes; "
                f"accepted are {some}.{hints.did_you_mean(name, list(known))}"
            )
    return np.array([known.index(name) for name in names], np.int32)
