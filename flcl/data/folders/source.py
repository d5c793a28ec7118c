"""Images in class folders: in a training and a test folder, or in one that is split by hash."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from flcl import settings
from flcl.data import base
from flcl.data.encoded.lazy import EncodedImages, ImageFiles
from flcl.data.folders import layout, splits
from flcl.data.folders.layout import NO_DOMAIN, Folder, Leaf, Tree

BY_PICTURE = "by picture"
"""The rule of a hash split with domains: all domains of one picture are on one side.

Older versions divided the files instead, by their whole path; their runs keep that rule.
"""


def load_folder(path: str, data: settings.Data, begun: base.Begun | None = None) -> base.Source:
    """Source from `path`, a folder of images of any format that Pillow reads.

    Layouts: `{train,test}/<class>/*`, or only `<class>/*`: then a hash chooses the share
    `data.test_fraction` for the test set. Both may have `<domain>/<class>/*` instead, and all may
    have a folder `images` inside the class folder. The names of the two sets may have any spelling
    that `splits` knows; `val` is the test set if there is no `test`. Classes and domains are the
    sorted folder names. Hidden files are not read. `ValueError` names the folder or file of an
    empty class, of a class that is not in both sets, and of names that may be a split or not.

    begun: how a run that has begun chose its images; files that it leaves out are listed even if
    they are not there. None = it has not begun.
    """
    folder = _opened(path, begun.skipped if begun else ())
    names = folder.entries()[0]
    roles = _roles(folder, names)
    by_picture = roles.train is None and (begun is None or bool(begun.split_rule))
    # A folder that is named `train` beside class folders is more likely a mistake than a class.
    if (roles.train is None) != (roles.test is None):
        have, lack = (roles.train, "test") if roles.train else (roles.test, "train")
        raise ValueError(
            f"{folder.name}: {have}/ is there but {lack}/ is not; add it, or put all class folders "
            "directly into one folder to have them split"
        )
    if roles.train is None:
        whole = folder.scan()
        layout.check_filled(folder.name, "", whole)
        train, test = hash_split(folder.name, whole, data.test_fraction, by_picture=by_picture)
        notes = ["the folder has no split, so a hash of the names chose the test images"]
    else:
        _check_labelled(folder, roles)
        train, test = folder.scan(roles.train), folder.scan(roles.test)
        layout.check_same(folder.name, (f"{roles.train}/", f"{roles.test}/"), train, test)
        for part, tree in ((roles.train, train), (roles.test, test)):
            layout.check_filled(folder.name, part, tree)
        notes = _notes(roles)
    # Sorted names: class ids must not depend on the order in which a disk lists its folders.
    classes = tuple(sorted({leaf.name for leaf in train}))
    domains = tuple(sorted({leaf.domain for leaf in train} - {NO_DOMAIN}))
    for pair in layout.alike(classes):
        notes = [*notes, f"{pair[0]!r} and {pair[1]!r} are two classes"]
    halves = [_split(folder, tree, classes, domains, data) for tree in (train, test)]
    rule = BY_PICTURE if domains and by_picture else ""
    return base.Source(folder.name, *halves, classes, domains, tuple(notes), split_rule=rule)


def load_pictures(path: str, data: settings.Data) -> base.Split | None:
    """All pictures of a folder without class folders; their labels are 0. None = it has folders.

    Raises `ValueError` if it is no folder, or an empty one.
    """
    folder = _opened(path)
    folders, names = folder.entries()
    if folders:
        return None
    if not names:
        raise ValueError(f"{folder.name}: there are no pictures in it")
    files = ImageFiles(folder.name, folder.root, names)
    return base.make_split(EncodedImages(files, data), np.zeros(len(names)))


def load_labelled(path: str, data: settings.Data) -> base.Source:
    """All images in `path` for an evaluation, as the test images of a source without others.

    The layouts are those of `load_folder`. If there is a training or a test set, only the test set
    is read; otherwise all images are read. Class folders may be empty. Raises `ValueError` for a
    folder without class folders, and for a training set without a test set.
    """
    folder = _opened(path)
    names = folder.entries()[0]
    roles = _roles(folder, names)
    # A folder of images is a class, whatever its name is; a split holds class folders.
    holds = [entry for entry in (roles.train, roles.test) if entry and folder.entries(entry)[0]]
    if holds and roles.test is None:
        raise ValueError(
            f"{folder.name}: {roles.train}/ is there but no test set is; training images give too "
            f"good an accuracy. To count them all the same, name folder:{path}/{roles.train}"
        )
    tree = folder.scan(roles.test) if holds else folder.scan()
    notes = (f"only {roles.test}/ is read",) if holds else ()
    classes = tuple(sorted({leaf.name for leaf in tree}))
    domains = tuple(sorted({leaf.domain for leaf in tree} - {NO_DOMAIN}))
    halves = [_split(folder, half, classes, domains, data) for half in ({}, tree)]
    return base.Source(folder.name, *halves, classes, domains, notes)


def hash_split(
    name: str, tree: Tree, fraction: float, *, by_picture: bool = True
) -> tuple[Tree, Tree]:
    """Training and test files: pictures with a hash below `fraction` are test pictures.

    A picture is a file; if there are domains, it is all files of a class that have the same name
    without their ending, because one picture may be there in several styles. by_picture: False =
    each file is a picture, as in older versions. The side of a picture depends only
    on its name, with one exception: if a leaf with two pictures or more would have no training or
    no test image, the picture nearest to the limit changes its side.
    """
    # By the hash of the name and not by a random number, so a new file does not move the others
    # to the other set.
    places: dict[str, float] = {}
    groups: dict[str, list[list[str]]] = {}
    for leaf in sorted(tree):
        names = [_picture(leaf, file, by_picture) for file in tree[leaf]]
        pictures = list(dict.fromkeys(names))
        places |= {picture: base.hashed_place(picture) for picture in pictures}
        groups.setdefault(leaf.name, []).append(pictures)
    sides = {picture: place < fraction for picture, place in places.items()}
    for label, leaves in groups.items():
        everything = list(dict.fromkeys(picture for leaf in leaves for picture in leaf))
        if len(everything) < 2:
            file = next(files[0] for leaf, files in tree.items() if leaf.name == label)
            raise ValueError(
                f"{name}: class {label!r} has one image only ({file}); at least two are "
                "needed, one to train and one to test on"
            )
        # The class comes last: it must have both sides, whatever its domains need.
        for pictures in (*leaves, everything):
            if len(pictures) > 1:
                _fill_both(sorted(pictures, key=places.__getitem__), sides)
    halves: tuple[Tree, Tree] = ({}, {})
    for leaf, files in tree.items():
        for tested, half in enumerate(halves):
            half[leaf] = [
                file for file in files if sides[_picture(leaf, file, by_picture)] == bool(tested)
            ]
    return halves


def _fill_both(ranked: list[str], sides: dict[str, bool]) -> None:
    """Moves the picture that is nearest to the limit if all are on one side."""
    if not any(sides[picture] for picture in ranked):
        sides[ranked[0]] = True
    if all(sides[picture] for picture in ranked):
        sides[ranked[-1]] = False


def _picture(leaf: Leaf, file: str, by_picture: bool) -> str:
    """What the hash split divides; see `hash_split`."""
    if leaf.domain == NO_DOMAIN or not by_picture:
        return layout.portable(file)
    return f"{leaf.name}/{layout.portable(pathlib.PurePosixPath(file).stem)}"


def _opened(path: str, absent: Sequence[str] = ()) -> Folder:
    if not layout.is_text(path):
        raise ValueError(f"folder: the path {os.fsencode(path)!r} is not UTF-8; rename the folder")
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"folder:{path}: no such folder")
    return Folder(f"folder:{path}", root, absent)


def _roles(folder: Folder, names: list[str]) -> splits.Roles:
    kinds = {entry: splits.kind_of(entry) for entry in names}
    # A class of valid coins is no validation set: that would hold class folders.
    used = [e for e in names if kinds[e] != "val" or folder.entries(e)[0]]
    tests = [e for e in used if kinds[e] in ("test", "val")]
    labelled = [e for e in tests if len(tests) == 1 or folder.is_labelled(e)]
    return splits.roles(folder.name, used, labelled=labelled)


def _check_labelled(folder: Folder, roles: splits.Roles) -> None:
    """Raises `ValueError` for a test set without class folders beside a training set with some."""
    inside = folder.entries(roles.test)[0]
    if inside and folder.is_labelled(roles.train) and not folder.is_labelled(roles.test):
        raise ValueError(
            f"{folder.name}: {roles.test}/ has no class folders, all its images are in "
            f"{inside[0]!r}; move them to {roles.test}/<class>/<image>"
        )


def _notes(roles: splits.Roles) -> list[str]:
    notes = []
    if roles.test != "test" or roles.train != "train":
        notes.append(f"{roles.train}/ is for training and {roles.test}/ for testing")
    if others := [f"{entry}/" for entry in (*roles.unread, *roles.others)]:
        notes.append(f"not read: {', '.join(others)}")
    return notes


def _split(folder: Folder, tree: Tree, classes, domains, data: settings.Data) -> base.Split:
    names, labels, ids = [], [], []
    # In a fixed order, because the position of an image decides in which batch it comes.
    for leaf in sorted(tree):
        names += tree[leaf]
        labels += [classes.index(leaf.name)] * len(tree[leaf])
        ids += [domains.index(leaf.domain) if domains else 0] * len(tree[leaf])
    files = ImageFiles(folder.name, folder.root, names)
    return base.make_split(EncodedImages(files, data), labels, ids)
