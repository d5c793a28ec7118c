"""Official archives of image files: ImageNet-R, CUB-200-2011, DomainNet.

They are read file by file. Nothing is unpacked to disk, and the image files are not changed.
"""

import functools
import io
import os
import pathlib
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from flcl.data import base
from flcl.data.archives import members as archives

IMAGENET_R_FILES = ("imagenet-r.tar",)
CUB200_FILES = ("CUB_200_2011.tgz",)
DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
DOMAINNET_FILES = tuple(
    name.format(domain) for domain in DOMAINS for name in ("{}.zip", "{}_train.txt", "{}_test.txt")
)
_IMAGENET_R_TEST = 0.2  # share of the images (ours)


class Example(NamedTuple):
    """One image file, and its positions in the class names and domain names of the archive."""

    image: bytes
    label: int
    domain: int = 0


class EncodedArchive(NamedTuple):
    """Content of an archive: part "train" or "test" -> a function that reads its examples."""

    parts: dict[str, Callable[[], Iterator[Example]]]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...] = ()


def read_imagenet_r(folder: pathlib.Path) -> EncodedArchive:
    """`imagenet-r.tar` in `folder`: classes in the order of their WordNet ids.

    There is no official training set. The usual lists of 24,000 and 6,000 images have no licence
    that allows us to include them. So a hash of the path of each image chooses a fifth of the
    images for the test set, and results differ slightly from those with the lists. Class names are
    those of README.txt, or the ids if it does not name all classes. Raises `ValueError` if the file
    is damaged.
    """
    path = folder / IMAGENET_R_FILES[0]
    members, readme = _members(path, {"imagenet-r/README.txt"})
    files = [name for name in members if re.fullmatch(r"imagenet-r/n\d+/[^/.][^/]*", name)]
    if not files:
        raise ValueError(f"{path}: holds no imagenet-r/<class>/<image>; {archives.AGAIN}")
    with archives.opened(path) as file:
        # A tar file that was cut between two members can be read, but has no zeros at its end.
        file.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
        if file.read().strip(tarfile.NUL):
            raise ValueError("ends early")
    ids = sorted({name.split("/")[1] for name in files})
    parts: dict[str, dict[str, int]] = {"train": {}, "test": {}}
    for name in files:
        _, wordnet_id, file = name.split("/")
        tested = base.hashed_place(f"{wordnet_id}/{file}") < _IMAGENET_R_TEST
        parts["test" if tested else "train"][name] = ids.index(wordnet_id)
    text = readme.get("imagenet-r/README.txt", "")
    words = dict(re.findall(r"^\s*(n\d+)\s+(\S.*?)\s*$", text, re.MULTILINE))
    names = tuple(words.get(wordnet_id, "") for wordnet_id in ids)
    if "" in names or len(set(names)) < len(names):
        names = tuple(ids)
    return EncodedArchive(_tar_parts(path, parts), archives.class_names(path, names))


def read_cub200(folder: pathlib.Path) -> EncodedArchive:
    """`CUB_200_2011.tgz` in `folder`, with its official split; `ValueError` if it is damaged."""
    path, top = folder / CUB200_FILES[0], "CUB_200_2011"
    lists = ("images", "image_class_labels", "train_test_split", "classes")
    members, texts = _members(path, {f"{top}/{name}.txt" for name in lists})
    for name in lists:
        if f"{top}/{name}.txt" not in texts:
            raise ValueError(f"{path}: holds no {top}/{name}.txt; {archives.AGAIN}")
    parts: dict[str, dict[str, int]] = {"train": {}, "test": {}}
    with archives.checked(path):
        files, labels, trained, classes = (
            dict(line.split(None, 1) for line in texts[f"{top}/{name}.txt"].splitlines())
            for name in lists
        )
        names = tuple(classes[str(number)].strip() for number in range(1, len(classes) + 1))
        for number, file in files.items():
            label = int(labels[number]) - 1
            if not 0 <= label < len(names):
                raise ValueError(f"image {number} has class {label + 1} of {len(names)}")
            split = ("test", "train")[("0", "1").index(trained[number].strip())]
            parts[split][f"{top}/images/{file.strip()}"] = label
    for listed in parts.values():
        _check_there(path, listed, members)
    return EncodedArchive(_tar_parts(path, parts), archives.class_names(path, names))


def read_domainnet(folder: pathlib.Path) -> EncodedArchive:
    """The six zip files of DomainNet and their lists of training and test images in `folder`.

    Lists and zip files may be the original or the cleaned ones. Class names are the folder names.
    Raises `ValueError` for a damaged file and for a listed image that is not in its zip file.
    """
    lists: dict[tuple[str, str], dict[str, int]] = {}
    names: dict[int, str] = {}
    for domain in DOMAINS:
        path = folder / f"{domain}.zip"
        with archives.opened(path) as file, zipfile.ZipFile(file) as archive:
            members = set(archive.namelist())
        for part in ("train", "test"):
            text = folder / f"{domain}_{part}.txt"
            lists[domain, part] = _domainnet_list(text)
            _check_there(path, lists[domain, part], members)
            for member, label in lists[domain, part].items():
                name = member.split("/")[-2]
                if names.setdefault(label, name) != name:
                    raise ValueError(
                        f"{text}: class {label} is {name!r} here and {names[label]!r} before; "
                        "fetch the official lists again"
                    )
    if sorted(names) != list(range(len(names))):
        lacking = min(set(range(len(names))) - set(names))
        raise ValueError(f"{folder}: the lists name no image of class {lacking}; fetch them again")
    parts = {
        part: functools.partial(_domainnet_examples, folder, lists, part)
        for part in ("train", "test")
    }
    class_names = archives.class_names(folder, [names[n] for n in range(len(names))])
    return EncodedArchive(parts, class_names, DOMAINS)


def _domainnet_list(path: pathlib.Path) -> dict[str, int]:
    """Path in the zip file -> class number, from lines such as `real/zebra/real_345_1.jpg 344`."""
    with archives.opened(path) as file, io.TextIOWrapper(file, "utf-8") as lines:
        labels = {}
        for number, line in enumerate(lines, start=1):
            member, _, label = line.strip().rpartition(" ")
            if not label.isdecimal() or member.count("/") < 2:
                raise ValueError(f"line {number} is not '<domain>/<class>/<image> <number>'")
            labels[member] = int(label)
    return labels


def _domainnet_examples(folder: pathlib.Path, lists: Mapping, part: str) -> Iterator[Example]:
    for number, domain in enumerate(DOMAINS):
        path = folder / f"{domain}.zip"
        with archives.opened(path) as file, zipfile.ZipFile(file) as archive:
            for member, label in lists[domain, part].items():
                yield Example(archives.read(archive, member), label, number)


def _members(path: pathlib.Path, wanted: set[str]) -> tuple[set[str], dict[str, str]]:
    """Names of all files in a tar archive, and the text of the files in `wanted`."""
    names, texts = set(), {}
    with archives.opened(path) as file, tarfile.open(fileobj=file) as archive:
        for name, member in archives.tar_files(archive):
            names.add(name)
            if name in wanted:
                texts[name] = archives.read(archive, member).decode("utf-8")
    return names, texts


def _check_there(path: pathlib.Path, listed: Mapping[str, int], members: set[str]) -> None:
    lacking = [name for name in listed if name not in members]
    if lacking:
        raise ValueError(
            f"{path}: holds no {lacking[0]}, which the lists name ({len(lacking)} such images); "
            f"{archives.AGAIN}"
        )


def _tar_parts(path: pathlib.Path, parts: dict[str, dict[str, int]]) -> dict:
    return {part: functools.partial(_tar_examples, path, labels) for part, labels in parts.items()}


def _tar_examples(path: pathlib.Path, labels: Mapping[str, int]) -> Iterator[Example]:
    """Examples in the order of the archive."""
    with archives.opened(path) as file, tarfile.open(fileobj=file) as archive:
        for name, member in archives.tar_files(archive):
            if name in labels:
                yield Example(archives.read(archive, member), labels[name])
