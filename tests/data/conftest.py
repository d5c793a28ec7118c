"""Pictures, folders and official archives in miniature."""

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flcl import settings


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A folder of its own for what a test remembers of its images."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def data():
    """Settings of small RGB images; keyword arguments override."""

    def make(**values) -> settings.Data:
        return settings.Data(**{"image_size": 8, "channels": 3, "memory_gib": 1.0, **values})

    return make


@pytest.fixture
def picture():
    """Writes an image file: of one colour, or of given pixels."""

    def write(path: Path, pixels=(10, 20, 30), size=(8, 8)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(pixels, tuple):
            Image.new("RGB", size, pixels).save(path)
        else:
            Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
        return path

    return write


def _text(value: str | bytes) -> bytes:
    """A `str` of Python 2: text and bytes alike."""
    value = value.encode() if isinstance(value, str) else value
    return b"T" + struct.pack("<i", len(value)) + value


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _python2(value) -> bytes:
    """Protocol 2 opcodes that Python 2 and its NumPy wrote for the values of a CIFAR batch."""
    match value:
        case str() | bytes():
            return _text(value)
        case int():
            return _number(value)
        case list():
            return b"](" + b"".join(map(_python2, value)) + b"e"
        case dict():
            items = b"".join(_python2(part) for item in value.items() for part in item)
            return b"}(" + items + b"u"
        case np.ndarray():
            new = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
            new += _number(0) + b"\x85" + _text("b") + b"\x87R"
            kind = b"cnumpy\ndtype\n" + _text("u1") + _number(0) + _number(1) + b"\x87R("
            kind += _number(3) + _text("|") + b"NNN" + _number(-1) * 2 + _number(0) + b"tb"
            shape = b"".join(map(_number, value.shape)) + b"\x86"
            return new + b"(" + _number(1) + shape + kind + b"\x89" + _text(value.tobytes()) + b"tb"


class Official:
    """Writes tiny archives in the layout of the official ones; returns what they hold."""

    python2 = staticmethod(_python2)

    def __init__(self):
        self._random = np.random.RandomState(0)

    def cifar(self, path: Path, folder: str, files: dict, keys: tuple, classes: int) -> dict:
        """part -> (uint8 [N, 32, 32, 3], labels), with every class twice in every file."""
        label_key, meta, names_key = keys
        expected = {part: ([], []) for part in files}
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz") as archive:
            names = [f"thing {number}" for number in range(classes)]
            self._add(archive, f"{folder}/{meta}", {names_key: names})
            self._add(archive, f"{folder}/readme.html", {})
            for part, members in files.items():
                for member in members:
                    labels = self._random.permutation(np.repeat(np.arange(classes), 2)).tolist()
                    images = self._random.randint(0, 256, (len(labels), 32, 32, 3)).astype("u1")
                    rows = np.stack([images[..., c].reshape(len(labels), -1) for c in range(3)], 1)
                    batch = {"data": rows.reshape(len(labels), 3072), label_key: labels}
                    self._add(archive, f"{folder}/{member}", {"batch_label": member, **batch})
                    expected[part][0].append(images)
                    expected[part][1].extend(labels)
        return {part: (np.concatenate(i), np.array(n)) for part, (i, n) in expected.items()}

    def cifar10(self, folder: Path) -> dict:
        files = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
        keys = ("labels", "batches.meta", "label_names")
        path = folder / "cifar-10-python.tar.gz"
        return self.cifar(path, "cifar-10-batches-py", files, keys, 10)

    def cifar100(self, folder: Path) -> dict:
        files = {"train": ["train"], "test": ["test"]}
        keys = ("fine_labels", "meta", "fine_label_names")
        return self.cifar(folder / "cifar-100-python.tar.gz", "cifar-100-python", files, keys, 100)

    def fashion_mnist(self, folder: Path) -> dict:
        folder.mkdir(parents=True, exist_ok=True)
        expected = {}
        for part, prefix, count in (("train", "train", 40), ("test", "t10k", 20)):
            images = self._random.randint(0, 256, (count, 28, 28)).astype(np.uint8)
            labels = self._random.permutation(np.arange(count) % 10).astype(np.uint8)
            for name, values in (("images-idx3", images), ("labels-idx1", labels)):
                header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
                content = gzip.compress(header + values.tobytes())
                (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(content)
            expected[part] = (images[..., None], labels)
        return expected

    def imagenet_r(self, folder: Path, count=12, prefix="") -> dict[str, bytes]:
        """Path in the archive -> JPEG, for three classes."""
        files = {f"imagenet-r/{wordnet_id}/{style}_{number}.jpg": self._jpeg()
                 for wordnet_id in ("n02219486", "n01443537", "n02206856")
                 for number, style in enumerate(("art", "toy") * (count // 2))}  # fmt: skip
        readme = "Renditions.\n\nn01443537 goldfish\nn02206856 bee\nn02219486 army ant\n"
        others = {"imagenet-r/README.txt": readme.encode(), "imagenet-r/n01443537/._x.jpg": b""}
        self._tar(folder / "imagenet-r.tar", {**others, **files}, prefix)
        return files

    def cub200(self, folder: Path) -> dict[str, tuple[bytes, int, bool]]:
        """File -> (JPEG, class number from 1, whether it is for training)."""
        names = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
        found = {}
        for label, name in enumerate(names, start=1):
            for number in range(5):
                found[f"{name}/Bird_{number}.jpg"] = (self._jpeg(), label, number % 3 != 0)
        order = sorted(found, reverse=True)  # the lists have an order of their own
        lists = {
            "images": [f"{n} {file}" for n, file in enumerate(order, start=1)],
            "image_class_labels": [f"{n} {found[f][1]}" for n, f in enumerate(order, start=1)],
            "train_test_split": [f"{n} {found[f][2]:d}" for n, f in enumerate(order, start=1)],
            "classes": [f"{n} {name}" for n, name in enumerate(names, start=1)],
        }
        files = {f"CUB_200_2011/images/{file}": jpeg for file, (jpeg, _, _) in found.items()}
        texts = {f"CUB_200_2011/{key}.txt": "\n".join(lines) + "\n" for key, lines in lists.items()}
        texts["attributes.txt"] = "1 has_bill_shape::curved\n"
        content = {**files, **{name: text.encode() for name, text in texts.items()}}
        self._tar(folder / "CUB_200_2011.tgz", content)
        return found

    def domainnet(self, folder: Path) -> dict[str, list[tuple[bytes, int, int]]]:
        """Part -> [(image file, class number, domain number)] in the order of the lists."""
        folder.mkdir(parents=True, exist_ok=True)
        found = {"train": [], "test": []}
        domains = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
        for place, domain in enumerate(domains):
            lines = {"train": [], "test": []}
            with zipfile.ZipFile(folder / f"{domain}.zip", "w") as archive:
                archive.writestr(f"{domain}/", b"")
                for label, name in enumerate(("aircraft_carrier", "zebra")):
                    for number in range(3):
                        part = "test" if number == 1 else "train"
                        if (domain, name, part) == ("painting", "zebra", "train"):
                            continue  # as the official lists, which lack one class there
                        member = f"{domain}/{name}/{domain}_{label:03}_{number:06}.jpg"
                        found[part].append((self._jpeg(), label, place))
                        archive.writestr(member, found[part][-1][0])
                        lines[part].append(f"{member} {label}\n")
            for part in lines:
                (folder / f"{domain}_{part}.txt").write_text("".join(lines[part]))
        return found

    def _jpeg(self) -> bytes:
        """Of a size of its own."""
        height, width = self._random.randint(6, 14, 2)
        pixels = self._random.randint(0, 256, (height, width, 3)).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG")
        return file.getvalue()

    @staticmethod
    def _tar(path: Path, files: dict[str, bytes], prefix: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(prefix + name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    @staticmethod
    def _add(archive: tarfile.TarFile, name: str, values: dict) -> None:
        content = b"\x80\x02" + _python2(values) + b"."
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def official() -> Official:
    return Official()
