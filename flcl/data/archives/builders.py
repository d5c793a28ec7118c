"""Small TFDS builders that prepare official archives without TensorFlow.

The builders of TFDS need TensorFlow to prepare data. These builders write ordinary ArrayRecord data
sets, which every TFDS can read. The import takes a second, so only `tfds_source` imports this
module, and only when it is needed.
"""

import contextlib
import io
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

import tensorflow_datasets as tfds
from PIL import Image

from flcl.data.archives import images as image_archives
from flcl.data.archives import numeric


class _Info(tfds.core.DatasetInfo):
    """What a data set tells of itself, from its builder alone."""

    def initialize_from_bucket(self) -> None:
        """Does nothing: no bucket has our data sets, and TFDS would leave an empty folder."""


class ArchiveBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Data set of an official archive; subclasses name the files of the archive."""

    VERSION = tfds.core.Version("1.0.0")
    FILES: tuple[str, ...]
    read: Callable[[pathlib.Path], numeric.Archive | image_archives.EncodedArchive]

    def __init__(self, *, archive, data_dir: pathlib.Path):
        self._archive = archive
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.ClassLabel(names=self._archive.class_names)
        return _Info(
            builder=self,
            features=tfds.features.FeaturesDict({**self._features(), "label": label}),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # keep the order of the archive
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {part: self._generate_examples(part) for part in self._archive.parts}

    def _features(self) -> dict:
        images, _ = self._archive.parts["train"]
        return {"image": tfds.features.Image(shape=images.shape[1:], encoding_format="png")}

    def _generate_examples(self, part: str) -> Iterator[tuple[int, dict]]:
        for number, (image, label) in enumerate(zip(*self._archive.parts[part], strict=True)):
            # Encoded here: TFDS would encode arrays with TensorFlow, but does not change bytes.
            png = io.BytesIO()
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(png, "PNG")
            yield number, {"image": png.getvalue(), "label": int(label)}


class EncodedBuilder(ArchiveBuilder, skip_registration=True):
    """Data set of an `image_archives.EncodedArchive` with its original image files."""

    def _features(self) -> dict:
        features = {"image": tfds.features.Image(shape=(None, None, 3))}
        if self._archive.domain_names:
            features["domain"] = tfds.features.ClassLabel(names=self._archive.domain_names)
        return features

    def _generate_examples(self, part: str) -> Iterator[tuple[int, dict]]:
        for number, example in enumerate(self._archive.parts[part]()):
            values = {"image": example.image, "label": example.label}
            if self._archive.domain_names:
                values["domain"] = example.domain
            yield number, values


class Cifar10(ArchiveBuilder, skip_registration=True):
    """50,000 training and 10,000 test images of 32x32 RGB in 10 classes."""

    name = "cifar10"
    FILES = numeric.CIFAR10_FILES
    read = staticmethod(numeric.read_cifar10)


class Cifar100(ArchiveBuilder, skip_registration=True):
    """50,000 training and 10,000 test images of 32x32 RGB in 100 (fine) classes."""

    name = "cifar100"
    FILES = numeric.CIFAR100_FILES
    read = staticmethod(numeric.read_cifar100)


class FashionMnist(ArchiveBuilder, skip_registration=True):
    """60,000 training and 10,000 test images of 28x28 grey in 10 classes."""

    name = "fashion_mnist"
    FILES = numeric.FASHION_FILES
    read = staticmethod(numeric.read_fashion_mnist)


class ImageNetR(EncodedBuilder, skip_registration=True):
    """30,000 renditions of 200 ImageNet classes, with our split (see `read_imagenet_r`)."""

    name = "imagenet_r"
    FILES = image_archives.IMAGENET_R_FILES
    read = staticmethod(image_archives.read_imagenet_r)


class Cub200(EncodedBuilder, skip_registration=True):
    """5,994 training and 5,794 test images of 200 bird species."""

    name = "cub200"
    FILES = image_archives.CUB200_FILES
    read = staticmethod(image_archives.read_cub200)


class DomainNet(EncodedBuilder, skip_registration=True):
    """About 590,000 images of 345 classes in six domains."""

    name = "domainnet"
    FILES = image_archives.DOMAINNET_FILES
    read = staticmethod(image_archives.read_domainnet)


BUILDERS: dict[str, type[ArchiveBuilder]] = {
    builder.name: builder
    for builder in (Cifar10, Cifar100, FashionMnist, ImageNetR, Cub200, DomainNet)
}


def prepare(name: str, manual_dir: pathlib.Path, tfds_dir: pathlib.Path) -> pathlib.Path:
    """Prepares one of `BUILDERS` from its official files; returns the prepared folder.

    The files are searched in `manual_dir/name`, then in `manual_dir`. TFDS writes to a temporary
    folder and renames it at the end, so an interrupted preparation never looks like a finished one.
    `ValueError` names the missing or damaged files.
    """
    cls = BUILDERS[name]
    folders = (manual_dir / name, manual_dir)
    folder = next((f for f in folders if all((f / file).exists() for file in cls.FILES)), None)
    if folder is None:
        lacking = [f for f in cls.FILES if not any((d / f).exists() for d in folders)]
        raise ValueError(
            f"tfds:{name}: not prepared in {tfds_dir}, and no official files to prepare it from; "
            f"put {', '.join(lacking or cls.FILES)} into {manual_dir}"
        )
    builder = cls(archive=cls.read(folder), data_dir=tfds_dir)
    target = pathlib.Path(builder.data_dir)
    with (
        tempfile.TemporaryDirectory() as unused,
        contextlib.redirect_stdout(sys.stderr),  # results go to stdout, progress does not
    ):
        try:
            builder.download_and_prepare(
                download_dir=unused,
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        except OSError:
            # Another process of this run may have prepared the same folder before this one.
            if not (target / "dataset_info.json").is_file():
                raise
    return target
