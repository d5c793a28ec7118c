"""TFDS data sets: prepared ones, our own builders, and never a trace of TensorFlow."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from flcl import settings
from flcl.data import images, sources, tfds_source
from flcl.data.archives import builders

ROOT = Path(__file__).resolve().parents[2]


class Pets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set as somebody else would prepare it: shuffled, with more features than needed."""

    name = "pets"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        parts: dict[str, int],
        hidden=(),
        kind=np.uint8,
        version="1.0.0",
        domains=None,
        **kw,
    ):
        self._parts, self._hidden, self._kind = parts, hidden, kind
        self._domains = domains
        type(self).VERSION = tfds.core.Version(version)
        super().__init__(file_format="array_record", **kw)

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["ant", "bee"]),
        }
        if self._kind:
            features["image"] = tfds.features.Image(shape=(None, None, 3), dtype=self._kind)
        if self._domains:
            features["domain"] = tfds.features.ClassLabel(names=["photo", "sketch", "toy"])
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label") if self._kind else None,
        )

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(part) for part in self._parts}

    def _generate_examples(self, part):
        for number in range(self._parts[part]):
            png = io.BytesIO()
            Image.new("RGB", (10, 8), (number % 2 * 100, number, 0)).save(png, "PNG")
            label = -1 if part in self._hidden else number % 2
            example = {"id": f"{part}{number}", "label": label}
            if self._kind:
                example["image"] = png.getvalue()
            if self._domains:
                example["domain"] = self._domains(number)
            yield number, example


@pytest.fixture
def prepare(tmp_path, data):
    """Prepares `Pets`; returns settings that read it."""

    def run(parts, name="tfds:pets", **values) -> settings.Data:
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder = Pets(parts=parts, data_dir=tmp_path / "tfds", **values)
        builder.download_and_prepare(download_dir=tmp_path / "none", download_config=config)
        return data(source=name, tfds_dir=str(tmp_path / "tfds"), manual_dir=str(tmp_path))

    return run


def numbers(split) -> np.ndarray:
    """The number of each example, told by its green; its label must be told by its red."""
    pixels = split.images[np.arange(len(split.images))][:, 4, 4].astype(int)
    np.testing.assert_array_equal(pixels[:, 0], split.labels * 100)
    return pixels[:, 1]


def info(features: list[str], supervised=None):
    kinds = {"image": tfds.features.Image(), "thumb": tfds.features.Image()}
    made = {key: kinds.get(key, tfds.features.ClassLabel(num_classes=2)) for key in features}
    return types.SimpleNamespace(features=made, supervised_keys=supervised)


def test_which_image_and_which_label():
    """The supervised ones, else those with the usual names, else the first by name."""
    features = ["thumb", "image", "label", "coarse", "zone"]
    for order in (features, features[::-1]):
        assert tfds_source._keys("x", info(order)) == ("image", "label")
        assert tfds_source._keys("x", info(order, ("thumb", "zone"))) == ("thumb", "zone")
        few = [feature for feature in order if feature != "label"]
        assert tfds_source._keys("x", info(few)) == ("image", "coarse")


def test_a_domain_is_learned_only_when_there_is_nothing_else():
    assert tfds_source._keys("x", info(["image", "domain", "zone"])) == ("image", "zone")
    assert tfds_source._keys("x", info(["image", "domain"])) == ("image", "domain")
    assert tfds_source._domain_key(info(["image", "domain", "zone"]).features, "zone") == "domain"
    assert tfds_source._domain_key(info(["image", "domain"]).features, "domain") is None
    assert tfds_source._domain_key(info(["image", "zone"]).features, "zone") is None
    text = {"domain": tfds.features.Text()}
    assert tfds_source._domain_key(text, "zone") is None


def test_domains(prepare, monkeypatch):
    made = prepare({"train": 20, "test": 6}, domains=lambda number: number % 3)
    source = sources.load_source(made)
    assert source.domain_names == ("photo", "sketch", "toy")
    for split in (source.train, source.test):
        np.testing.assert_array_equal(split.domains, numbers(split) % 3)
        assert split.domains.dtype == np.int32
    # Both columns were left beside the records: nothing is scanned again.
    monkeypatch.setattr(tfds_source.files, "write", lambda *_, **__: pytest.fail("scanned"))
    np.testing.assert_array_equal(sources.load_source(made).test.domains, source.test.domains)


def test_domains_of_hashed_splits(prepare):
    made = prepare({"train": 60}, domains=lambda number: number // 20)
    source = sources.load_source(made)
    for split in (source.train, source.test):
        np.testing.assert_array_equal(split.domains, numbers(split) // 20)


def test_images_without_a_domain_are_refused(prepare):
    made = prepare({"train": 6, "test": 2}, domains=lambda number: -1 if number > 4 else 0)
    with pytest.raises(ValueError, match="tfds:pets: train has images without a domain"):
        sources.load_source(made)


@pytest.mark.parametrize("memory_gib", [0.0, 1.0])
def test_prepared_data_is_read_as_it_is(prepare, data, memory_gib):
    made = prepare({"train": 20, "test": 6, "validation": 4})
    made = data(source=made.source, tfds_dir=made.tfds_dir, memory_gib=memory_gib)
    source = sources.load_source(made)
    assert source.name == "tfds:pets" and source.class_names == ("ant", "bee")
    assert source.train.images.shape == (20, 8, 8, 3) and len(source.test.images) == 6
    assert isinstance(source.train.images, np.ndarray if memory_gib else images.LazyImages)
    assert sorted(numbers(source.train)) == list(range(20))
    assert sorted(numbers(source.test)) == list(range(6))


def test_validation_stands_in_for_a_missing_or_unlabelled_test_set(prepare, tmp_path):
    made = prepare({"train": 8, "validation": 4})
    assert len(sources.load_source(made).test.images) == 4
    shutil.rmtree(tmp_path / "tfds")
    made = prepare({"train": 8, "test": 6, "validation": 4}, hidden=("test",))
    assert len(sources.load_source(made).test.images) == 4


def test_a_single_split_is_hashed(prepare):
    made = prepare({"train": 60, "test": 4}, hidden=("test",))
    source = sources.load_source(made)
    found = [numbers(split).tolist() for split in (source.train, source.test)]
    assert sorted(found[0] + found[1]) == list(range(60))
    assert 4 <= len(found[1]) <= 20
    again = sources.load_source(made)
    assert numbers(again.test).tolist() == found[1]


def test_newest_version_unless_one_is_named(prepare, data):
    for version, count in (("1.9.0", 6), ("1.10.0", 8), ("1.2.0", 4)):
        made = prepare({"train": count, "test": 2}, version=version)
    assert len(sources.load_source(made).train.images) == 8
    named = data(source="tfds:pets:1.2.0", tfds_dir=made.tfds_dir)
    assert len(sources.load_source(named).train.images) == 4
    missing = data(source="tfds:pets:3.0.0", tfds_dir=made.tfds_dir)
    with pytest.raises(ValueError, match=r"pets:3.0.0: prepared are 1.10.0, 1.2.0, 1.9.0 in"):
        sources.load_source(missing)
    with pytest.raises(ValueError, match="version 'newest' is not like 1.0.0"):
        sources.load_source(data(source="tfds:pets:newest", tfds_dir=made.tfds_dir))


def test_configurations_are_named(prepare, data, tmp_path):
    made = prepare({"train": 4, "test": 2})
    folder = tmp_path / "tfds" / "pets"
    (folder / "1.0.0").rename(tmp_path / "1.0.0")
    for config in ("large", "small"):
        shutil.copytree(tmp_path / "1.0.0", folder / config / "1.0.0")
    small = data(source="tfds:pets/small", tfds_dir=made.tfds_dir)
    assert len(sources.load_source(small).train.images) == 4
    with pytest.raises(ValueError, match="such as tfds:pets/large .prepared are large, small"):
        sources.load_source(made)


def test_labels_are_read_once_and_without_decoding(prepare, data, monkeypatch):
    made = prepare({"train": 10, "test": 4})
    lazy = data(source="tfds:pets", tfds_dir=made.tfds_dir, memory_gib=0.0, verify="off")
    monkeypatch.setattr(images, "decode", lambda *_: pytest.fail("an image was decoded"))
    expected = sources.load_source(lazy).train.labels
    folder = Path(made.tfds_dir) / "pets" / "1.0.0"
    copies = sorted(folder.glob("flcl_label_*.npy"))
    assert [copy.name.split("_")[2] for copy in copies] == ["test", "train"]
    assert not list(folder.glob(".*"))
    np.save(copies[1], 1 - expected)  # what is read now comes from the copy
    np.testing.assert_array_equal(sources.load_source(lazy).train.labels, 1 - expected)
    copies[1].write_bytes(b"damaged")
    np.testing.assert_array_equal(sources.load_source(lazy).train.labels, expected)
    copies[1].unlink()
    os.mkfifo(copies[1])  # to open it would wait for ever
    np.testing.assert_array_equal(sources.load_source(lazy).train.labels, expected)
    np.save(copies[1], 1 - expected)
    record = next(folder.glob("pets-train.array_record*"))
    os.utime(record, ns=(1, 1))  # another file: the copy no longer belongs to it
    np.testing.assert_array_equal(sources.load_source(lazy).train.labels, expected)


def test_a_folder_that_cannot_be_written_to_is_read(prepare, monkeypatch):
    made = prepare({"train": 4, "test": 2})

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(tfds_source.np, "save", refuse)
    assert len(sources.load_source(made).train.images) == 4
    assert not list((Path(made.tfds_dir) / "pets" / "1.0.0").glob("*flcl*"))


def spoil_metadata(folder: Path) -> str:
    (folder / "features.json").write_text("{")
    return r"1.0.0\S* is damaged .*; prepare it again"


def prepared_as_tfrecord(folder: Path) -> str:
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return "is prepared as tfrecord; prepare it with --file_format=array_record"


def without_training_split(folder: Path) -> str:
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"] = [split for split in info["splits"] if split["name"] != "train"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return r"has no split 'train' \(it has test\)"


def spoil_information(folder: Path) -> str:
    (folder / "dataset_info.json").write_text("[1]")
    return r"1.0.0\S* is damaged .*; prepare it again"


SPOILED = (spoil_metadata, spoil_information, prepared_as_tfrecord, without_training_split)


@pytest.mark.parametrize("spoil", SPOILED)
def test_wrong_data_sets_are_refused(prepare, spoil):
    made = prepare({"train": 4, "test": 2})
    message = spoil(Path(made.tfds_dir) / "pets" / "1.0.0")
    with pytest.raises(ValueError, match=f"tfds:pets: .*{message}") as caught:
        sources.load_source(made)
    assert "\n" not in str(caught.value)


def plain_type(kind: str) -> dict:
    return {"pythonClassName": kind, "jsonFeature": {"json": "{}"}}


def old_type(kind: str) -> dict:
    return {"type": kind, "content": {}}


def type_inside_text(kind: str) -> dict:
    inner = json.dumps({"deep": {"type": kind, "content": "{}"}})
    sequence = "tensorflow_datasets.core.features.sequence_feature.Sequence"
    return {"pythonClassName": sequence, "jsonFeature": {"json": inner}}


@pytest.mark.parametrize("feature", [plain_type, old_type, type_inside_text])
def test_a_feature_type_of_somebody_else_is_refused_and_not_imported(
    prepare, tmp_path, monkeypatch, feature
):
    (tmp_path / "strange_features.py").write_text("raise SystemExit('this code ran')")
    monkeypatch.syspath_prepend(tmp_path)
    made = prepare({"train": 4, "test": 2})
    path = Path(made.tfds_dir) / "pets" / "1.0.0" / "features.json"
    content = json.loads(path.read_text())
    content["featuresDict"]["features"]["extra"] = feature("strange_features.Thing")
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"features.json names .*'strange_features.Thing'"):
        sources.load_source(made)


def test_metadata_that_cannot_be_read_now_is_not_called_damaged(prepare, monkeypatch):
    made = prepare({"train": 4, "test": 2})

    def fails(self):
        raise OSError(5, "Input/output error", str(self))

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match=r"Input/output error: '.*features.json'"):
        sources.load_source(made)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": None}, r"has no Image feature \(it has id, label\)"),
        ({"kind": np.uint16}, "image feature is .*uint16.*; uint8 is needed"),
        ({"hidden": ("train",)}, "has training images without a label"),
    ],
)
def test_data_sets_of_something_else_are_refused(prepare, values, message):
    made = prepare({"train": 4, "test": 2}, **values)
    with pytest.raises(ValueError, match=message):
        sources.load_source(made)


def test_images_are_checked_once_although_they_are_decoded_later(prepare, data, monkeypatch):
    made = prepare({"train": 4, "test": 2})
    lazy = data(source="tfds:pets", tfds_dir=made.tfds_dir, memory_gib=0.0)
    decoded = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda *args: decoded.append(args[1]) or decode(*args))
    for _ in range(2):
        assert isinstance(sources.load_source(lazy).train.images, images.LazyImages)
        assert len(decoded) == 6
    monkeypatch.setattr(images, "decode", lambda *_: pytest.fail("only headers are read"))
    headers = data(source="tfds:pets", tfds_dir=made.tfds_dir, memory_gib=0.0, verify="headers")
    assert len(sources.load_source(headers).test.images) == 2


def test_a_record_that_is_no_image_is_named(prepare, monkeypatch):
    monkeypatch.setattr(Image.Image, "save", lambda self, file, kind: file.write(b"no image"))
    made = prepare({"train": 4, "test": 2})
    with pytest.raises(ValueError, match=r"tfds:pets: 6 of 6 images .* train\[0\] \(.* test\[1\]"):
        sources.load_source(made)


# Our own builders.

KINDS = {"cifar10": 32, "cifar100": 32, "fashion_mnist": 28}


def ours(tmp_path, data, name, **values) -> settings.Data:
    return data(
        source=f"tfds:{name}",
        tfds_dir=str(tmp_path / "tfds"),
        manual_dir=str(tmp_path / "manual"),
        image_size=KINDS[name.partition(":")[0]],
        channels=1 if name == "fashion_mnist" else 3,
        resize=False,
        **values,
    )


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("subfolder", [True, False])
def test_official_archives_are_prepared(tmp_path, data, official, name, subfolder):
    folder = tmp_path / "manual" / (name if subfolder else "")
    expected = getattr(official, name)(folder)
    made, temporary = ours(tmp_path, data, name), Path(tempfile.gettempdir())
    before = sorted(temporary.iterdir())
    source = sources.load_source(made)
    assert sorted(temporary.iterdir()) == before
    shutil.rmtree(tmp_path / "manual")  # prepared once, the archive is not needed again
    for found in (source, sources.load_source(made)):
        for part, split in (("train", found.train), ("test", found.test)):
            np.testing.assert_array_equal(split.images, expected[part][0])
            np.testing.assert_array_equal(split.labels, expected[part][1])
    assert source.class_names[1] == ("Trouser" if name == "fashion_mnist" else "thing 1")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("fashion_mnist", "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-"),
    ],
)
def test_missing_archives_are_named_with_their_place(tmp_path, data, name, files):
    with pytest.raises(ValueError, match=f"not prepared in .*tfds, .* put {files}.*manual$"):
        sources.load_source(ours(tmp_path, data, name))
    assert not (tmp_path / "tfds").exists()


def test_the_missing_file_of_several_is_named(tmp_path, data, official):
    official.fashion_mnist(tmp_path / "manual")
    (tmp_path / "manual" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="; put t10k-labels-idx1-ubyte.gz into"):
        sources.load_source(ours(tmp_path, data, "fashion_mnist"))


def test_damaged_archives_prepare_nothing(tmp_path, data, official):
    official.cifar10(tmp_path / "manual")
    path = tmp_path / "manual" / "cifar-10-python.tar.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="cifar-10-python.tar.gz: damaged"):
        sources.load_source(ours(tmp_path, data, "cifar10"))
    assert not (tmp_path / "tfds").exists()


def test_unknown_data_sets_say_how_to_prepare_them(tmp_path, data):
    made = data(source="tfds:cifr10", tfds_dir=str(tmp_path))
    with pytest.raises(ValueError, match="tfds build cifr10 --file_format=array_record.*'cifar10'"):
        sources.load_source(made)


def test_a_failed_preparation_is_not_taken_for_a_finished_one(
    tmp_path, data, official, monkeypatch
):
    expected = official.fashion_mnist(tmp_path / "manual")
    made = ours(tmp_path, data, "fashion_mnist")
    generate = builders.ArchiveBuilder._generate_examples

    def failing(self, part):
        yield from list(generate(self, part))[:3]
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patch:
        patch.setattr(builders.ArchiveBuilder, "_generate_examples", failing)
        with pytest.raises(RuntimeError, match="out of luck"):
            sources.load_source(made)
    source = sources.load_source(made)
    np.testing.assert_array_equal(source.train.images, expected["train"][0])


def test_another_process_may_be_faster(tmp_path, data, official, monkeypatch):
    expected = official.fashion_mnist(tmp_path / "manual")
    made = ours(tmp_path, data, "fashion_mnist")
    sources.load_source(made)
    (tmp_path / "tfds").rename(tmp_path / "theirs")
    generate = builders.ArchiveBuilder._generate_examples

    def overtaken(self, part):
        yield from generate(self, part)
        theirs = tmp_path / "theirs" / "fashion_mnist" / "1.0.0"
        shutil.copytree(theirs, tmp_path / "tfds/fashion_mnist/1.0.0", dirs_exist_ok=True)

    monkeypatch.setattr(builders.ArchiveBuilder, "_generate_examples", overtaken)
    source = sources.load_source(made)
    np.testing.assert_array_equal(source.train.images, expected["train"][0])


PROGRAM = """
import os, signal, sys
from flcl import settings
from flcl.data import sources
from flcl.data.archives import builders

if {killed}:
    generate = builders.ArchiveBuilder._generate_examples

    def killed(self, part):
        yield from generate(self, part)
        os.kill(os.getpid(), signal.SIGKILL)

    builders.ArchiveBuilder._generate_examples = killed
folders = {{"tfds_dir": "tfds", "manual_dir": "manual"}}
made = settings.Data(source="tfds:fashion_mnist", image_size=28, **folders)
source = sources.load_source(made)
assert source.train.images.shape == (40, 28, 28, 1), source.train.images.shape
assert not any(name.split(".")[0] == "tensorflow" for name in sys.modules)
print(source.train.images.sum())
"""


def test_without_tensorflow_and_after_a_kill(tmp_path, official):
    """A real process is killed while it prepares; a second one finishes, never touching TensorFlow.

    A TensorFlow that must not be imported is installed for both.
    """
    expected = official.fashion_mnist(tmp_path / "manual")
    package = tmp_path / "packages" / "tensorflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('TensorFlow was imported')")
    env = {**os.environ, "PYTHONPATH": f"{package.parent}{os.pathsep}{ROOT}"}
    ends = []
    for killed in (True, False):
        command = [sys.executable, "-W", "error", "-c", PROGRAM.format(killed=killed)]
        ends.append(subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True))
    assert ends[0].returncode == -signal.SIGKILL, ends[0].stderr
    assert ends[1].returncode == 0, ends[1].stderr
    # Progress goes to the error stream: results alone are printed.
    assert ends[1].stdout.split() == [str(expected["train"][0].sum())]
