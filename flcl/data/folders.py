"""Images in class folders: in `train/` and `test/`, or in one folder that is split by hash."""

import os
import pathlib
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from flcl import settings
from flcl.data import base, images

_SYSTEM_FILES = ("Thumbs.db", "desktop.ini", "Icon\r")  # written by file managers
_NO_DOMAIN = ""


class _Leaf(NamedTuple):
    """One folder with images; `domain` is empty in the one-level layout."""

    domain: str
    name: str


# Files of each leaf folder, as paths relative to the scanned folder, in order.
_Tree = dict[_Leaf, list[str]]


def load_folder(path: str, data: settings.Data) -> base.Source:
    """Source from `path`, a folder of images of any format that Pillow reads.

    Layouts: `{train,test}/<class>/*`, or only `<class>/*`: then a hash chooses the share
    `data.test_fraction` for the test set. Both may have `<domain>/<class>/*` instead. Classes and
    domains are the sorted folder names. Hidden files are not read. `ValueError` names the folder or
    file of an empty class, or a class folder that is not in all sets and domains.
    """
    name, root = _named_root(path)
    train, test = _trees(name, root, data.test_fraction)
    # Sorted names: class ids must not depend on the order in which a disk lists its folders.
    classes = tuple(sorted({leaf.name for leaf in train}))
    domains = tuple(sorted({leaf.domain for leaf in train} - {_NO_DOMAIN}))
    splits = [_split(root, tree, classes, domains, data) for tree in (train, test)]
    return base.Source(name, splits[0], splits[1], classes, domains)


def load_labelled(path: str, data: settings.Data) -> tuple[base.Split, tuple[str, ...]]:
    """All images in `path` for an evaluation, and the names of its class folders.

    The layouts are those of `load_folder`. If there are `train/` and `test/`, only `test/` is read;
    otherwise all images are read. Class folders may be empty, and may differ between domains.
    Raises `ValueError` for a folder without class folders.
    """
    name, root = _named_root(path)
    # Images of `train/` were perhaps trained on, so they would give too good an accuracy.
    if {"train", "test"} <= set(_entries(root)[0]):
        name, root = f"{name}/test", root / "test"
    tree = _scan(name, root, alike=False)
    classes = tuple(sorted({leaf.name for leaf in tree}))
    domains = tuple(sorted({leaf.domain for leaf in tree} - {_NO_DOMAIN}))
    return _split(root, tree, classes, domains, data), classes


def _named_root(path: str) -> tuple[str, pathlib.Path]:
    """The name of the folder in messages, and its path."""
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"folder:{path}: no such folder")
    return f"folder:{path}", root


def _trees(name: str, root: pathlib.Path, fraction: float) -> tuple[_Tree, _Tree]:
    """Training and test files, relative to `root`."""
    present = {"train", "test"}.intersection(_entries(root)[0])
    # A folder that is named `train` beside class folders is more likely a mistake than a class.
    if len(present) == 1:
        have = present.pop()
        lack = "test" if have == "train" else "train"
        raise ValueError(
            f"{name}: {have}/ is there but {lack}/ is not; add it, or put all class folders "
            "directly into one folder to have them split"
        )
    if not present:
        whole = _scan(name, root)
        _check_filled(name, "", whole)
        return _hash_split(name, whole, fraction)
    scanned = {split: _scan(f"{name}/{split}", root / split) for split in ("train", "test")}
    _check_same(name, scanned["train"], scanned["test"])
    for split, tree in scanned.items():
        _check_filled(name, split, tree)
        for leaf, files in tree.items():
            # Relative to the common root, because one reader serves both sets.
            tree[leaf] = [f"{split}/{file}" for file in files]
    return scanned["train"], scanned["test"]


def _entries(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Names of the visible folders and files in `folder`, in the same order on every system."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name not in _SYSTEM_FILES:
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders, key=_portable), sorted(files, key=_portable)


def _portable(path: str) -> str:
    """`path` with accented letters in the same Unicode form on all file systems."""
    return unicodedata.normalize("NFC", path)


def _scan(name: str, folder: pathlib.Path, *, alike: bool = True) -> _Tree:
    """Leaf folders in `folder`; detects one level (classes) or two levels (domains, classes).

    alike: every domain must have the same class folders.
    """
    first = {entry: _entries(folder / entry) for entry in _entries(folder)[0]}
    if not first:
        raise ValueError(f"{name}: no class folders in it; each class needs a folder of its images")
    # A folder with subfolders is a domain, a folder with files is a class.
    nested = [entry for entry, (folders, _) in first.items() if folders]
    flat = [entry for entry, (_, files) in first.items() if files]
    if nested and flat:
        raise ValueError(
            f"{name}: {nested[0]!r} holds folders and {flat[0]!r} holds files; use either "
            "<class>/<image> or <domain>/<class>/<image> throughout"
        )
    if nested:
        domains = {entry: first[entry][0] for entry in first}
        if alike:
            _check_alike(name, domains)
        return _scan_domains(name, folder, domains)
    return {
        _Leaf(_NO_DOMAIN, _portable(entry)): [f"{entry}/{file}" for file in files]
        for entry, (_, files) in first.items()
    }


def _scan_domains(name: str, folder: pathlib.Path, domains: dict[str, list[str]]) -> _Tree:
    """Leaf folders of the two-level layout; `domains` lists the class folders of each domain."""
    tree: _Tree = {}
    for domain, folders in domains.items():
        for entry in folders:
            deeper, files = _entries(folder / domain / entry)
            if deeper:
                raise ValueError(
                    f"{name}: '{domain}/{entry}' holds the folder {deeper[0]!r}; images must be "
                    "in <class>/ or <domain>/<class>/"
                )
            leaf = _Leaf(_portable(domain), _portable(entry))
            tree[leaf] = [f"{domain}/{entry}/{file}" for file in files]
    return tree


def _check_alike(name: str, domains: dict[str, list[str]]) -> None:
    classes = {domain: set(map(_portable, folders)) for domain, folders in domains.items()}
    first, *later = classes
    for domain in later:
        _check_equal(
            name, "class folder", [classes[first], classes[domain]], (f"{first}/", f"{domain}/")
        )


def _check_same(name: str, train: _Tree, test: _Tree) -> None:
    domains = [{leaf.domain for leaf in tree} for tree in (train, test)]
    # One of the two sets has domains and the other has none.
    if ({_NO_DOMAIN} in domains) and domains[0] != domains[1]:
        raise ValueError(
            f"{name}: one of train/ and test/ holds <class>/<image> and the other "
            "<domain>/<class>/<image>; use one layout for both"
        )
    _check_equal(name, "domain folder", domains, ("train/", "test/"))
    classes = [{leaf.name for leaf in tree} for tree in (train, test)]
    _check_equal(name, "class folder", classes, ("train/", "test/"))


def _check_equal(name: str, what: str, sets: list[set[str]], where: tuple[str, str]) -> None:
    # In both directions, so the error says which side lacks the folder.
    for i, j, here, there in ((0, 1, *where), (1, 0, *reversed(where))):
        extra = sorted(sets[i] - sets[j])
        if extra:
            raise ValueError(
                f"{name}: {what} {extra[0]!r} is in {here} but not in {there}; "
                "both need the same ones"
            )


def _check_filled(name: str, part: str, tree: _Tree) -> None:
    for leaf, files in tree.items():
        if not files:
            folder = "/".join(filter(None, (part, leaf.domain, leaf.name)))
            raise ValueError(
                f"{name}: class {leaf.name!r} has no images in {folder}/; add some or remove "
                "the class folder everywhere"
            )


def _hash_split(name: str, tree: _Tree, fraction: float) -> tuple[_Tree, _Tree]:
    """Files whose path has a hash below `fraction` are test files.

    The side of a file depends only on its path, with one exception: if a folder would have no
    training or no test image, the file nearest to the limit changes its side.
    """
    train: _Tree = {}
    test: _Tree = {}
    for leaf, files in tree.items():
        if len(files) < 2:
            raise ValueError(
                f"{name}: class {leaf.name!r} has one image only ({files[0]}); at least two are "
                "needed, one to train and one to test on"
            )
        # By the hash of the path and not by a random number, so a new file does not move the
        # others to the other set.
        places = {file: base.hashed_place(_portable(file)) for file in files}
        ranked = sorted(files, key=places.__getitem__)
        count = sum(place < fraction for place in places.values())
        # At least one image on each side, whatever the hashes say.
        tested = set(ranked[: min(max(count, 1), len(files) - 1)])
        train[leaf] = [file for file in files if file not in tested]
        test[leaf] = [file for file in files if file in tested]
    return train, test


def _split(root, tree: _Tree, classes, domains, data: settings.Data) -> base.Split:
    files, labels, ids = [], [], []
    # In a fixed order, because the position of an image decides in which batch it comes.
    for leaf in sorted(tree):
        files += tree[leaf]
        labels += [classes.index(leaf.name)] * len(tree[leaf])
        ids += [domains.index(leaf.domain) if domains else 0] * len(tree[leaf])

    def read(positions: list[int]) -> Iterator[np.ndarray]:
        # A generator: a file is opened when its image is decoded.
        paths = (root / files[position] for position in positions)
        return (images.decode(path, str(path), data) for path in paths)

    return base.make_split(images.LazyImages(len(files), read, data), labels, ids)
