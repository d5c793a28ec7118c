"""Sampling and classification as pure functions, for programs that users compile themselves."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flcl import settings
from flcl.devices import sharding
from flcl.flow import sampler
from flcl.methods.base import Classifier, Generator, Tree

USER_STREAM = "user samples"
"""The stream of the noise of `GeneratorOnDisk.sample`."""

SampleFunction = Callable[..., jax.Array]
ClassifyFunction = Callable[[Tree, jax.Array], jax.Array]


def sample_function(method: Generator, sample: settings.Sample, at_once: int) -> SampleFunction:
    """The function `sample` of `GeneratorOnDisk.functional`, which documents it."""
    data = method.run.data
    shape = (data.image_size, data.image_size, data.channels)

    def one_image(memory, place, noise):
        velocity = jax.jit(method.sampled(method.class_parameters(memory, place), sample))
        images, calls = sampler.solve(velocity, noise[None], sample)
        # Traced code cannot raise, so a missing image is marked by what no image contains.
        return jnp.where((place >= 0) & sampler.arrived(calls, sample), images[0], jnp.nan)

    def function(parameters, key, labels, noise=None, *, indices=None):
        labels = _checked_labels(labels, at_once)
        places = places_of(parameters["places"], labels)
        if noise is None:
            numbers = places_of(parameters["noise"], labels)
            indices = earlier_equal(labels) if indices is None else jnp.asarray(indices)
            _check_shape("indices", indices, labels.shape)
            noise = jax.vmap(lambda p, i: sampler.noise_of(key, p, i[None], shape)[0])(
                numbers, indices
            )
        _check_shape("noise", noise, (*labels.shape, *shape))

        def some_images(those):
            return jax.vmap(one_image, in_axes=(None, 0, 0))(parameters["memory"], *those)

        # If the images are divided over devices, each device has some images of every turn.
        turns = jax.tree.map(lambda v: _in_turns(v, at_once), (places, noise))
        return jnp.swapaxes(jax.lax.map(some_images, turns), 0, 1).reshape(noise.shape)

    return function


def classify_function(method: Classifier, head: str) -> ClassifyFunction:
    """The function `classify` of `ClassifierOnDisk.functional`, which documents it."""

    def function(parameters, images):
        features = method.features(parameters["memory"], images)
        scores = method.scores(parameters["solved"], features)[head]
        # Inside, columns are in the order in which the classes came.
        return scores[:, parameters["places"]]

    return function


def earlier_equal(labels: jax.Array) -> jax.Array:
    """For each entry of `labels` [N], the number of equal entries before it; int32 [N]."""
    order = jnp.argsort(labels, stable=True)
    ordered = labels[order]
    # Equal entries are adjacent now: the place within such a group is the number that is asked for.
    within = jnp.arange(labels.shape[0]) - jnp.searchsorted(ordered, ordered, side="left")
    return jnp.zeros(labels.shape, jnp.int32).at[order].set(within.astype(jnp.int32))


def free_arrays(tree: Tree, mesh: Mesh) -> Tree:
    """A copy on the default device, which every program may move and divide as it needs."""
    # Arrays on the mesh of the run are bound to its devices: a program on others refuses them.
    same = jax.device_put(tree, sharding.replicated(mesh))
    return jax.tree.map(jnp.asarray, jax.device_get(same))


def slimmed(function: Callable, tree: Tree, *others) -> tuple[Tree, Callable]:
    """`tree` without the arrays that do not change the result, and `function` of that tree.

    None is in the place of an array that `function(tree, *others)` does not need. others: the other
    arguments, or their shapes.
    """
    leaves, structure = jax.tree.flatten(tree)
    jaxpr = jax.make_jaxpr(function)(tree, *others).jaxpr
    needed = {id(variable) for variable in jaxpr.outvars}
    # From the results back to the arguments; traced code is a list of equations.
    for equation in reversed(jaxpr.eqns):
        if any(id(variable) in needed for variable in equation.outvars):
            needed |= {id(variable) for variable in equation.invars}
    needs = [id(variable) in needed for variable in jaxpr.invars[: len(leaves)]]
    shapes = [jax.typeof(leaf) for leaf in leaves]

    def smaller(few, *others):
        given = iter(jax.tree.leaves(few))
        # The function still has to find an array in each place.
        full = [
            next(given) if need else jnp.zeros(shape.shape, shape.dtype)
            for need, shape in zip(needs, shapes, strict=True)
        ]
        return function(jax.tree.unflatten(structure, full), *others)

    few = [leaf if need else None for leaf, need in zip(leaves, needs, strict=True)]
    return jax.tree.unflatten(structure, few), smaller


def places_of(table: jax.Array, labels: jax.Array) -> jax.Array:
    """The label inside the run of each class id of `labels`; -1 for a class that is not learned.

    table: these labels by class id, [classes].
    """
    # In JAX a negative index counts from the end, and one that is too large is the last.
    inside = (labels >= 0) & (labels < table.shape[0])
    return jnp.where(inside, jnp.asarray(table)[labels], -1)


def _checked_labels(labels, at_once: int) -> jax.Array:
    labels = jnp.asarray(labels)
    integers = jnp.issubdtype(labels.dtype, jnp.integer)
    if labels.ndim != 1 or not labels.size or not integers:
        raise ValueError(
            f"labels: {labels.dtype}{list(labels.shape)}; class ids are needed, integers [N]"
        )
    if labels.shape[0] % at_once:
        raise ValueError(
            f"labels: {labels.shape[0]} entries; with at_once={at_once} a multiple of it is needed"
        )
    return labels


def _check_shape(name: str, array: jax.Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: shape {list(array.shape)}; for these labels {list(shape)}")


def _in_turns(values: jax.Array, at_once: int) -> jax.Array:
    """[N, ...] -> [N / at_once, at_once, ...] with values i, i + N / at_once, ... in turn i."""
    return jnp.swapaxes(values.reshape(at_once, -1, *values.shape[1:]), 0, 1)
