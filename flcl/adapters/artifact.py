"""Files of one class, of a trunk, and of a trunk merged with a class: safetensors, float32.

    kind     arrays                          the description has, beside what all have
    class    LAYER/a, /b, /alpha, /omega     name, label, family, p, layers, trunk
    trunk    the U-Net's, such as input/bias model
    merged   as a trunk                      name, label, family, model, trunk

All have: kind, format, `sha256` of the arrays (`storage.tensors.digest`), `image` [side, channels],
and where they come from: seed, steps, sources. LAYER is the name of an adapted convolution.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.traverse_util
import jax
import numpy as np

from flcl import hints, settings
from flcl.adapters.functional import Layers
from flcl.adapters.functions import FAMILIES
from flcl.storage import paths, schema, tensors

FORMAT = 1
"""The newest format of these files, which this version writes."""

# Bytes. The factors of one class for all of ImageNet's network need 0.2 MB; a trunk of ten billion
# parameters needs 40 GB.
_LARGEST = {"class": 256 << 20, "trunk": 64 << 30, "merged": 64 << 30}
_MOST_FUNCTIONS = 10_000
_FactorsOfLayers = Mapping[str, Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What every file says of itself.

    Attributes:
      format: the number of its format.
      sha256: that of its arrays, see `storage.tensors.digest`.
      image: side and channels of the images.
      seed: the seed of the run in which it was trained.
      steps: the optimiser steps of the task in which it was trained.
      sources: SHA-256 of what is known of the training images.
    """

    format: int = FORMAT
    sha256: str
    image: tuple[int, ...]
    seed: int
    steps: int
    sources: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AboutClass(About):
    """That of a class.

    Attributes:
      name: the name of the class.
      label: its number in the run in which it was trained; the noise of its images depends on it.
      family: a key of `adapters.functions.FAMILIES`.
      p: the number of functions.
      layers: {adapted convolution: {factor: its shape}}.
      trunk: SHA-256 of the trunk that it belongs to.
    """

    kind: Literal["class"] = "class"
    name: str
    label: int
    family: str
    p: int
    layers: Mapping[str, Mapping[str, tuple[int, ...]]]
    trunk: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class AboutTrunk(About):
    """That of a trunk. model: the settings of its U-Net."""

    kind: Literal["trunk"] = "trunk"
    model: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AboutMerged(AboutTrunk):
    """That of an ordinary U-Net of one class; the attributes are those of `AboutClass`."""

    kind: Literal["merged"] = "merged"
    name: str
    label: int
    family: str
    trunk: str


class ClassFile(NamedTuple):
    """The content of a class file: {layer: {factor: float32 vector}}."""

    about: AboutClass
    factors: _FactorsOfLayers


class NetworkFile(NamedTuple):
    """The content of the file of a trunk or a merged network: its parameters as a tree."""

    about: AboutTrunk
    parameters: dict


def trunk_digest(parameters: Mapping) -> str:
    """SHA-256 of a U-Net's parameters: over sorted names, types, shapes and bytes."""
    return tensors.digest(flat(parameters))


def flat(tree: Mapping) -> dict[str, np.ndarray]:
    """A tree of arrays by flat names, such as `input/kernel`."""
    leaves = flax.traverse_util.flatten_dict(tree, sep="/")
    return {name: np.asarray(value) for name, value in leaves.items()}


def class_bytes(factors: _FactorsOfLayers, **about) -> bytes:
    """The content of a class file.

    factors: {layer: {factor: vector}} of one class. about: fields of `AboutClass`; those that
    follow from the factors are filled in.
    """
    arrays = flat(factors)
    layers = {
        name: {kind: tuple(np.shape(v)) for kind, v in entry.items()}
        for name, entry in factors.items()
    }
    described = AboutClass(**about, layers=layers, sha256=tensors.digest(arrays))
    return tensors.to_bytes(arrays, schema.to_json(described))


def network_bytes(parameters: Mapping, **about) -> bytes:
    """The content of the file of a trunk, or of a merged network if `about` has a class name.

    about: fields of `AboutTrunk` or `AboutMerged`.
    """
    kind, arrays = (AboutMerged if "name" in about else AboutTrunk), flat(parameters)
    described = kind(**about, sha256=tensors.digest(arrays))
    return tensors.to_bytes(arrays, schema.to_json(described))


def read_class(path: str | Path) -> ClassFile:
    """A class file, checked against what it says of itself.

    Raises `ValueError` in one line for another kind of file, a newer format, a damaged file, and
    for arrays that are missing, unknown, of another shape or type, or not finite.
    """
    content, about = _read(path, AboutClass)
    if about.family not in FAMILIES:
        hint = hints.did_you_mean(about.family, list(FAMILIES))
        raise ValueError(f"{path}: family {hints.quoted(about.family)} is not known.{hint}")
    if not 1 <= about.p <= _MOST_FUNCTIONS:
        raise ValueError(f"{path}: p is {about.p}, 1 to {_MOST_FUNCTIONS} are accepted")
    if not about.layers:
        raise ValueError(f"{path}: it has no layers")
    shapes = _shapes_of(about)
    tensors.check(path, content.tensors, shapes)
    factors = {
        name: {kind: content.tensors[f"{name}/{kind}"] for kind in entry}
        for name, entry in about.layers.items()
    }
    # What the description says of a layer must be what the family needs there.
    layers = {
        name: tuple(entry[kind].size if kind in entry else 0 for kind in ("b", "a"))
        for name, entry in factors.items()
    }
    tensors.check(path, content.tensors, factor_shapes(layers, about.family, about.p))
    return ClassFile(about, factors)


def read_trunk(path: str | Path, shapes: Mapping[str, tuple[int, ...]] | None = None):
    """A trunk as `NetworkFile`, such as for a generator that starts frozen (F13).

    shapes: those of the needed parameters by flat name; None = any network. Raises what
    `read_class` raises.
    """
    return _network(path, AboutTrunk, shapes)


def trunk_for(model: settings.Trunk, data: settings.Data, shapes: Mapping) -> NetworkFile:
    """The trunk of `model.weights`, checked: names, shapes, image size and SHA-256.

    shapes: the parameters that the network needs, abstract or not. Raises what `read_trunk` raises,
    and `ValueError` for another image size or another SHA-256 than `model.sha256`.
    """
    path = paths.local(model.weights, "model.weights")
    leaves = flax.traverse_util.flatten_dict(shapes, sep="/")
    try:
        file = read_trunk(path, {name: leaf.shape for name, leaf in leaves.items()})
    except FileNotFoundError:
        raise ValueError(f"model.weights={model.weights!r}: there is no such file") from None
    except ValueError as error:
        raise ValueError(f"model.weights: {error}") from None
    if file.about.image != (data.image_size, data.channels):
        raise ValueError(
            f"model.weights={model.weights!r}: a trunk for images [side, channels] "
            f"{list(file.about.image)}, this run has {[data.image_size, data.channels]}"
        )
    if model.sha256 not in ("", file.about.sha256):
        raise ValueError(
            f"model.weights={model.weights!r}: has the SHA-256 {file.about.sha256}, and "
            f"model.sha256 is {model.sha256}: bring that trunk back, or begin in another workdir"
        )
    return file


def read_merged(path: str | Path, shapes: Mapping[str, tuple[int, ...]] | None = None):
    """A merged network as `NetworkFile`; see `read_trunk`."""
    return _network(path, AboutMerged, shapes)


def factor_shapes(layers: Layers, family: str, p: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the factors of one class by flat name. layers: {name: (Cin, Cout)}."""
    init = FAMILIES[family].init
    kinds = jax.eval_shape(lambda key: init(key, 1, 1, 1, 1.0), jax.random.key(0))
    return {
        f"{name}/{kind}": ({"a": cout, "b": cin}.get(kind, p),)
        for name, (cin, cout) in layers.items()
        for kind in kinds
    }


def check_fit(
    path: str | Path, about: AboutClass, *, trunk: str, family: str, p: int, layers: Layers
) -> None:
    """Raises `ValueError` if the class cannot be used with this trunk.

    trunk, family, p, layers: those of the run that is to use it. The trunk comes first: with
    another one nothing else matters.
    """
    if about.trunk != trunk:
        raise ValueError(
            f"{path}: class {hints.quoted(about.name)} belongs to the trunk {about.trunk}, and "
            f"this run has the trunk {trunk}: import it into a run with the same trunk"
        )
    for name, theirs, ours in (("family", about.family, family), ("p", about.p, p)):
        if theirs != ours:
            raise ValueError(f"{path}: its {name} is {theirs}, and that of this run is {ours}")
    shapes = _shapes_of(about)
    stored = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    tensors.check(path, stored, factor_shapes(layers, family, p))


def _shapes_of(about: AboutClass) -> dict[str, tuple[int, ...]]:
    return {f"{name}/{kind}": s for name, f in about.layers.items() for kind, s in f.items()}


def _network(path, kind: type, shapes) -> NetworkFile:
    content, about = _read(path, kind)
    if shapes is not None:
        tensors.check(path, content.tensors, shapes)
    names = content.tensors.keys()
    above = {name[:end] for name in names for end, letter in enumerate(name) if letter == "/"}
    if both := sorted(above & names):
        raise ValueError(f"{path}: {hints.quoted(both[0])} is an array and a group of arrays")
    return NetworkFile(about, flax.traverse_util.unflatten_dict(content.tensors, sep="/"))


def _read(path, cls: type) -> tuple[tensors.Content, Any]:
    """The content of a file, and its description, which must be of the class `cls`."""
    needed = cls.kind
    content = tensors.read(path, _LARGEST[needed])
    kind, number = content.about.get("kind"), content.about.get("format")
    if kind in _LARGEST and kind != needed:
        raise ValueError(f"{path}: is the file of a {kind}, that of a {needed} is needed")
    if isinstance(number, int) and number > FORMAT:
        raise ValueError(
            f"{path}: has format {number}, and this version of flcl reads formats up to {FORMAT}: "
            "install a newer one"
        )
    about = schema.from_json(cls, content.about, str(path))
    if about.format < 1:
        raise ValueError(f"{path}: format is {about.format}, 1 to {FORMAT} are known")
    if len(about.image) != 2 or min(about.image) < 1:
        raise ValueError(f"{path}: image is {list(about.image)}, [side, channels] is needed")
    for name in ("sha256", "trunk"):
        value = getattr(about, name, "0" * 64)
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(f"{path}: {name} is {hints.quoted(value)}, a SHA-256 is needed")
    if (computed := tensors.digest(content.tensors)) != about.sha256:
        raise ValueError(
            f"{path}: its arrays have the SHA-256 {computed}, and it says {about.sha256}: it has "
            "changed since it was written; get it again"
        )
    return content, about
