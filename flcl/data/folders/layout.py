"""What is in a folder of images: which file belongs to which class and domain."""

import os
import pathlib
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from flcl import files
from flcl.data.folders import splits

# Written by file managers, archive programs and network disks; compared in small letters.
_SYSTEM_NAMES = {
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx",
    "@eadir", "@tmp", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "lost+found",
    "system volume information", "network trash folder", "temporary items", "__pycache__",
}  # fmt: skip
_SYSTEM_ENDINGS = ("@synoeastream", "@synoresource", ":zone.identifier")
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

NO_DOMAIN = ""


class Leaf(NamedTuple):
    """One class in one domain; `domain` is empty in the one-level layout."""

    domain: str
    name: str


# Files of each leaf, as paths relative to the folder of the data set, in order.
Tree = dict[Leaf, list[str]]


class Folder:
    """The folder of a data set: what it holds, without the files of the system.

    Attributes:
      name: its name in messages.
      root: its path.
    """

    def __init__(self, name: str, root: pathlib.Path, absent: Iterable[str] = ()):
        """absent: relative paths of files that are listed even if they are not there."""
        self.name, self.root = name, root
        self._absent: dict[str, set[str]] = {}
        for path in absent:
            folder, _, file = path.rpartition("/")
            self._absent.setdefault(folder, set()).add(file)

    def entries(self, path: str = "") -> tuple[list[str], list[str]]:
        """Names of the visible folders and files in `path`, in the same order on every system.

        Raises `ValueError` for a name that is not UTF-8.
        """
        folders, others = set(), set(self._absent.get(path, ()))
        with os.scandir(self.root / path) as entries:
            for entry in entries:
                if not _of_system(entry.name):
                    self._check_text(entry.name, path)
                    (folders if _is_folder(entry) else others).add(entry.name)
        return sorted(folders, key=_place), sorted(others, key=_place)

    def scan(self, path: str = "") -> Tree:
        """All leaves in `path`; detects one level (classes) or two levels (domains, classes).

        A domain may lack some classes. Raises `ValueError` for another layout, and for names that
        look like a split.
        """
        name = f"{self.name}/{path}" if path else self.name
        names = self.entries(path)[0]
        if not names:
            raise ValueError(f"{name}: no class folders in it; each class needs a folder of images")
        # The files of a class, or None for a domain, which holds class folders.
        first = {entry: self._images(_join(path, entry)) for entry in names}
        domains = [entry for entry in names if first[entry] is None]
        splits.check_understood(name, names, "", nested=bool(domains))
        filled = [entry for entry in names if first[entry]]
        if domains and filled:
            raise ValueError(
                f"{name}: {domains[0]!r} holds folders and {filled[0]!r} holds files; use either "
                "<class>/<image> or <domain>/<class>/<image> throughout"
            )
        tree: Tree = {}
        for entry in names:
            if domains:
                self._scan_domain(name, path, entry, tree)
            else:
                _add(tree, Leaf(NO_DOMAIN, portable(entry)), first[entry])
        return tree

    def is_labelled(self, path: str) -> bool:
        """Whether `path` holds class folders, and not only one folder with all images."""
        folders = self.entries(path)[0]
        if len(folders) == 1 and folders[0].casefold() in splits.IMAGE_FOLDERS:
            return bool(self.entries(_join(path, folders[0]))[0])
        return bool(folders)

    def _scan_domain(self, name: str, path: str, domain: str, tree: Tree) -> None:
        classes = self.entries(_join(path, domain))[0]
        splits.check_understood(name, classes, domain, nested=False)
        for entry in classes:
            paths = self._images(_join(path, domain, entry))
            if paths is None:
                deeper = self.entries(_join(path, domain, entry))[0]
                raise ValueError(
                    f"{name}: '{domain}/{entry}' holds the folder {deeper[0]!r}; images must be "
                    "in <class>/ or <domain>/<class>/"
                )
            _add(tree, Leaf(portable(domain), portable(entry)), paths)

    def _images(self, path: str) -> list[str] | None:
        """The files of a class folder; None if the folder holds other folders."""
        folders, beside = self.entries(path)
        if not folders:
            return [_join(path, file) for file in beside]
        # Tiny ImageNet has `<class>/images/<image>`, and beside it a text file with boxes.
        inner = _join(path, folders[0])
        if len(folders) > 1 or folders[0].casefold() not in splits.IMAGE_FOLDERS:
            return None
        deeper, images = self.entries(inner)
        if deeper:
            return None
        for file in beside:
            if file.casefold().endswith(_PICTURES):
                raise ValueError(
                    f"{self.name}: {path!r} holds the image {file!r} and the folder "
                    f"{folders[0]!r}; move all its images into one of them"
                )
        return [_join(inner, file) for file in images]

    def _check_text(self, entry: str, path: str) -> None:
        # Python shows the bytes of such a name as half of a character, which no file can store.
        if not is_text(entry):
            raise ValueError(
                f"{self.name}: the name {os.fsencode(entry)!r} in {path or '.'!r} is not UTF-8; "
                "rename it"
            )


def is_text(name: str) -> bool:
    """Whether a name of the file system is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def portable(path: str) -> str:
    """`path` with accented letters in the same Unicode form on all file systems."""
    return unicodedata.normalize("NFC", path)


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in capital letters or in spaces around them."""
    first: dict[str, str] = {}
    pairs = []
    for name in names:
        if (before := first.setdefault(name.strip().casefold(), name)) != name:
            pairs.append((before, name))
    return pairs


def check_same(name: str, where: tuple[str, str], train: Tree, test: Tree) -> None:
    """Raises `ValueError` if two sets, in the folders `where`, have other domains or classes."""
    domains = [{leaf.domain for leaf in tree} for tree in (train, test)]
    # One of the two sets has domains and the other has none.
    if ({NO_DOMAIN} in domains) and domains[0] != domains[1]:
        raise ValueError(
            f"{name}: one of {where[0]} and {where[1]} holds <class>/<image> and the other "
            "<domain>/<class>/<image>; use one layout for both"
        )
    classes = [{leaf.name for leaf in tree} for tree in (train, test)]
    for what, sets in (("domain folder", domains), ("class folder", classes)):
        # In both directions, so the error says which side lacks the folder.
        for i, j in ((0, 1), (1, 0)):
            extra = sorted(sets[i] - sets[j])
            if extra:
                raise ValueError(
                    f"{name}: {what} {extra[0]!r} is in {where[i]} but not in {where[j]}; "
                    "both need the same ones"
                )


def check_filled(name: str, path: str, tree: Tree) -> None:
    """Raises `ValueError` for a class folder in `path` without images."""
    for leaf, paths in tree.items():
        if not paths:
            folder = _join(path, leaf.domain, leaf.name)
            raise ValueError(
                f"{name}: class {leaf.name!r} has no images in {folder}/; add some or remove "
                "the class folder everywhere"
            )


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if files.may_pass(error, entry.path):
            raise
        return False  # a link that leads to itself: the check of the images names it


def _of_system(name: str) -> bool:
    small = name.casefold()
    return name.startswith(".") or small in _SYSTEM_NAMES or small.endswith(_SYSTEM_ENDINGS)


def _place(name: str) -> tuple[str, str]:
    # Two names that differ in their Unicode form alone need an order, too.
    return portable(name), name


def _join(*parts: str) -> str:
    return "/".join(filter(None, parts))


def _add(tree: Tree, leaf: Leaf, paths: list[str]) -> None:
    """Adds files to a leaf. Two folders may have one name, each in another Unicode form."""
    if leaf in tree:
        paths = sorted([*tree[leaf], *paths], key=_place)
    tree[leaf] = paths
