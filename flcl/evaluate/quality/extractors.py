"""Features of images for the metrics of generated images: of the judge, or of weights in a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from flcl import settings
from flcl.data import loader
from flcl.data.selection import Selection
from flcl.devices import hosts, sharding
from flcl.devices import mesh as meshes
from flcl.evaluate.judge import Judge
from flcl.evaluate.quality.remembered import Remembered
from flcl.models import inception, vit
from flcl.models.pretrained import load
from flcl.ops.pixels import normalize
from flcl.storage import paths

_BATCH = 64  # images of one call of a network from a file
_MOST_PIXELS = 224  # side of the images that a transformer gets, as in the usual evaluations


class Extractor(Protocol):
    """Turns images into features.

    Attributes:
      name: the features, for people: `judge`, or the kind and the name of the file.
      sha256: that of the file; empty for the judge.
    """

    name: str
    sha256: str

    def __call__(self, images: Selection) -> Iterator[np.ndarray]:
        """Features float32 [n, d], batch after batch, in the order of `images`."""


class JudgeFeatures:
    """The features before the head of a judge that was trained on real images."""

    name, sha256 = "judge", ""

    def __init__(self, judge: Judge, variables: dict):
        self._judge, self._variables = judge, variables

    def __call__(self, images: Selection) -> Iterator[np.ndarray]:
        """See `Extractor`."""
        return self._judge.features(self._variables, images)


class _Network(NamedTuple):
    """A network from a file. apply: (parameters, uint8 [B, H, W, C]) -> float32 [B, d]."""

    parameters: dict
    apply: object
    sha256: str


class FileFeatures:
    """The features of a network from a file of weights, computed on all devices."""

    def __init__(self, spec: str, network: _Network, mesh: Mesh):
        kind, _, file = spec.partition(":")
        self.name, self.sha256 = f"{kind}:{Path(file).name}", network.sha256
        self._mesh, self._size = mesh, meshes.rounded_up(_BATCH, mesh)
        everywhere = sharding.replicated(mesh)
        self._parameters = jax.device_put(network.parameters, everywhere)
        self._apply = jax.jit(network.apply, out_shardings=everywhere)
        self._remembered = Remembered(f"{kind} {network.sha256}")

    def __call__(self, images: Selection) -> Iterator[np.ndarray]:
        """See `Extractor`. Features of equal images are read from the cache of the user."""
        return self._remembered(images, self._computed)

    def _computed(self, images: Selection) -> Iterator[np.ndarray]:
        # A power of two for fewer images: few programs, and little is computed for nothing.
        count = len(images)
        size = min(self._size, meshes.rounded_up(1 << (count - 1).bit_length(), self._mesh))
        batches = loader.in_order(images, size, hosts.rows(size))
        for number in range(len(batches)):
            batch = sharding.place_batch({"images": batches[number]["images"]}, self._mesh)
            features = np.asarray(self._apply(self._parameters, batch["images"]))
            yield features[: count - number * size]


def of_file(spec: str, mesh: Mesh) -> FileFeatures:
    """The features of `vit:FILE` or `inception:FILE`.

    Raises `ValueError` in one line for a file that is missing, damaged or of another network.
    """
    return FileFeatures(spec, _network(spec), mesh)


def check(spec: str) -> None:
    """Raises the errors of `of_file`; the judge needs no file."""
    if spec != "judge":
        _network(spec)


def _network(spec: str) -> _Network:
    kind, _, file = spec.partition(":")
    try:
        if kind == "vit":
            return _transformer(file)
        path = paths.local(file, "judge.features")
        parameters, sha256 = inception.load(path)
        return _Network(parameters, inception.features, sha256)
    except ValueError as error:
        text = str(error).removeprefix(f"model.weights={file}: ")
        raise ValueError(f"judge.features={spec}: {text}") from None


def _transformer(file: str) -> _Network:
    """A transformer of any layout that `model.weights` reads, on images of up to 224 pixels."""
    model = settings.ViT(weights=file)
    size = load.native_size(model, _MOST_PIXELS)
    pretrained = load.load(model, size)
    mean, std = load.normalization(pretrained.model.normalize)
    network = vit.VisionTransformer(pretrained.model, size)

    def apply(parameters, images):
        # As in the public code that compares generators by such features: bicubic, to whole levels.
        shape = (images.shape[0], size, size, images.shape[3])
        pixels = jax.image.resize(images.astype(jnp.float32), shape, "bicubic")
        pixels = normalize(jnp.round(jnp.clip(pixels, 0, 255)), mean, std)
        return network.apply({"params": parameters}, pixels)

    return _Network(pretrained.params, apply, pretrained.model.sha256)
