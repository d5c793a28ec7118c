"""A run as a program that needs JAX alone: one file of `jax.export`, or two with its weights.

`Exported` says how such a file is called. The programs get plain numbers and arrays only.
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from flcl import files, hints, settings
from flcl.devices import hosts
from flcl.flow import sampler
from flcl.methods.base import Classifier, Generator, Tree, bytes_of
from flcl.rng import stream_key
from flcl.runs.outside import pure
from flcl.storage import paths

PLATFORMS = ("cpu", "cuda", "tpu")
"""The platforms of a program; JAX compiles it there, so this machine needs none of them."""

INSIDE, BESIDE, ARGUMENT = "inside", "beside", "argument"
# The format of the file counts its bytes with 31 bits, and the program itself needs a few MB.
_MOST_INSIDE = 2**31 - 2**26


class Exported(NamedTuple):
    """What was exported.

    Attributes:
      files: the program, and its weights if they are beside it.
      arguments: the arguments of its `call` in their order: see `GeneratorOnDisk.export` and
        `ClassifierOnDisk.export`.
      labels: the number that chooses the noise of each learned class, by its name.
    """

    files: tuple[Path, ...]
    arguments: tuple[str, ...]
    labels: dict[str, int]


class _Program(NamedTuple):
    """A function to export: (parameters, *arguments) -> arrays; its arguments by name."""

    function: Callable
    parameters: Tree
    arguments: dict[str, Tree]


def sampling(
    method: Generator, sample: settings.Sample, parameters: Tree, factors: bool
) -> _Program:
    """The program that draws images of one class; factors: its factors are an argument."""
    data = method.run.data
    shape = (data.image_size, data.image_size, data.channels)
    chunk = sampler.make_sampler(functools.partial(method.sampled, sample=sample), shape, sample)

    def draw(class_parameters, seed, label, indices):
        # The noise of `GeneratorOnDisk.sample`.
        key = stream_key(seed, pure.USER_STREAM)
        images, calls = chunk(class_parameters, key, label, indices)
        return jnp.where((label >= 0) & sampler.arrived(calls, sample), images, 0)

    def of_class_id(parameters, seed, label, indices):
        place = pure.places_of(parameters["places"], label)
        number = pure.places_of(parameters["noise"], label)
        return draw(method.class_parameters(parameters["memory"], place), seed, number, indices)

    def of_factors(trunk, factors, seed, label, indices):
        return draw({**trunk, "factors": _tree(factors, like)}, seed, label, indices)

    number = jax.ShapeDtypeStruct((), np.int32)
    indices = jax.ShapeDtypeStruct(export.symbolic_shape("N"), np.int32)
    numbers = {"seed": number, "label": number, "indices": indices}
    if not factors:
        return _Program(of_class_id, parameters, numbers)
    one_class = method.class_parameters(parameters["memory"], 0)
    if "factors" not in one_class:
        raise ValueError(
            f"classes={ARGUMENT!r}: a class of {method.name} is a part of the whole network and "
            f"has no factors of its own; use classes={INSIDE!r}"
        )
    like = jax.eval_shape(lambda: one_class.pop("factors"))
    return _Program(of_factors, one_class, {"factors": _flat(like), **numbers})


def classifying(method: Classifier, function: Callable, parameters: Tree) -> _Program:
    """The program that gives the scores of images."""
    data = method.run.data
    images = export.symbolic_shape(f"N, {data.image_size}, {data.image_size}, {data.channels}")
    return _Program(function, parameters, {"images": jax.ShapeDtypeStruct(images, np.uint8)})


def write(
    program: _Program, path: str | os.PathLike, weights: str, platforms: Sequence[str]
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Writes a program, and its weights if they are `beside` it; returns files and arguments."""
    path = paths.local(path, "path")
    beside = path.with_suffix(".safetensors")
    _check(program, weights, platforms, path, beside)
    function, arguments = program.function, program.arguments
    if weights == INSIDE:
        exported = _exported(
            lambda *given: function(program.parameters, *given), arguments, platforms
        )
        return _written({path: exported}), tuple(arguments)
    # Reading bfloat16 needs more than NumPy: in the file all weights are float32.
    wide = {name: _wide(leaf) for name, leaf in _flat(program.parameters).items()}

    def with_weights(given, *others):
        return function(_tree(given, program.parameters), *others)

    arguments = {"weights": jax.tree.map(jax.typeof, wide), **arguments}
    from safetensors.numpy import save  # late: few need it

    content = save({name: np.ascontiguousarray(leaf) for name, leaf in wide.items()})
    exported = _exported(with_weights, arguments, platforms)
    # The weights first: a program is there only with what it needs.
    return _written({beside: content, path: exported})[::-1], tuple(arguments)


def _exported(function: Callable, arguments: dict[str, Tree], platforms: Sequence[str]) -> bytes:
    shapes = [
        jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), tree)
        for tree in arguments.values()
    ]
    program = export.export(jax.jit(function), platforms=tuple(platforms))(*shapes)
    return bytes(program.serialize())


def _written(contents: dict[Path, bytes]) -> tuple[Path, ...]:
    if hosts.is_main():
        for path, content in contents.items():
            files.write(path, content)
    return tuple(contents)


def _check(program: _Program, weights: str, platforms, path: Path, beside: Path) -> None:
    _check_word("weights", weights, (INSIDE, BESIDE))
    if isinstance(platforms, str) or not platforms:
        raise ValueError(f"platforms={platforms!r}: a list is needed, such as {list(PLATFORMS)}")
    for platform in platforms:
        _check_word("platforms", platform, (*PLATFORMS, "rocm"))
    size = bytes_of(program.parameters)
    if weights == INSIDE and size > _MOST_INSIDE:
        raise ValueError(
            f"weights={INSIDE!r}: {size:,} bytes, and one file holds {_MOST_INSIDE:,}; use "
            f"weights={BESIDE!r}"
        )
    if weights == BESIDE and beside == path:
        raise ValueError(
            f"path={str(path)!r}: that is the name of the weights; use {path.stem}.jax"
        )


def check_classes(classes: str) -> bool:
    """Whether the factors of a class are an argument; `ValueError` for another word."""
    _check_word("classes", classes, (INSIDE, ARGUMENT))
    return classes == ARGUMENT


def _check_word(name: str, value, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise ValueError(f"{name}={hints.quoted(value)}: accepted are {', '.join(accepted)}")


def _flat(tree: Tree) -> dict[str, jax.Array]:
    """Arrays by name, such as `memory/trunk/input/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _tree(arrays: dict[str, jax.Array], like: Tree) -> Tree:
    """Inverse of `_flat`, in the types of `like`."""
    leaves = [arrays[name].astype(leaf.dtype) for name, leaf in _flat(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _wide(leaf) -> np.ndarray:
    narrow = jnp.issubdtype(leaf.dtype, jnp.floating)
    return np.asarray(leaf, np.float32) if narrow else np.asarray(leaf)
