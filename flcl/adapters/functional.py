"""FunLoRA's class bank: A_y, B_y, alpha_y and omega_y for each class and adapted convolution.

A bank is `{layer name: {"a": [K, Cout], "b": [K, Cin], "alpha": [K, p], "omega": [K, p]}}` with a
fixed number of rows K; a new class fills a row and never changes a shape. The rows of a few classes
("rows") have the same structure with a shorter first axis.
"""

import functools

import chex
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from flcl.adapters.functions import FAMILIES, Factors, Family
from flcl.adapters.modulate import Modulation, modulated_kernel
from flcl.metrics.ranks import effective_rank

Bank = dict[str, Factors]
Layers = dict[str, tuple[int, int]]  # adapted convolution -> (Cin, Cout)


def init_rows(
    key: jax.Array, layers: Layers, family: str, labels: jax.Array, p: int, sigma: float
) -> Bank:
    """New factors of `labels` [G]; they depend only on (key, label, layer)."""
    if not layers:
        return {}
    # All layers as long as the longest: entry i of a random vector does not depend on its length.
    # One program for all is several times shorter to compile than one for each layer.
    widest = [max(length) for length in zip(*layers.values(), strict=True)]

    def one(layer, label):
        # Folded in and not split: a split would depend on how many layers and classes there are.
        folded = jax.random.fold_in(jax.random.fold_in(key, layer), label)
        return FAMILIES[family].init(folded, *widest, p, sigma)

    every = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.arange(len(layers)), labels)

    def of_layer(index: int, cin: int, cout: int) -> Factors:
        lengths = {"a": cout, "b": cin}
        return {name: v[index, :, : lengths.get(name, p)] for name, v in every.items()}

    return {name: of_layer(n, *shape) for n, (name, shape) in enumerate(layers.items())}


@jax.jit
def pack(rows: Bank) -> jax.Array:
    """Rows of G classes as one array [G, parameters per class], with leaves in sorted order.

    One array needs no more bytes than its parameters; hundreds of small arrays would need several
    times as many bytes in a file.
    """
    leaves = jax.tree.leaves(rows)
    chex.assert_equal_shape_prefix(leaves, 1)
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)


@jax.jit
def unpack(packed: jax.Array, bank: Bank) -> Bank:
    """Inverse of `pack`; `bank` gives names and shapes."""
    leaves, structure = jax.tree.flatten(bank)
    ends = np.cumsum([leaf[0].size for leaf in leaves])
    columns = jnp.split(packed, ends[:-1], axis=1)
    shaped = [c.reshape(-1, *leaf.shape[1:]) for c, leaf in zip(columns, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


@functools.partial(jax.jit, static_argnames=("count", "how"))
def warm_rows(
    key: jax.Array, bank: Bank, learned: jax.Array, known: jax.Array, count: int, how: str
) -> Bank:
    """Factors for `count` new classes from the learned ones (F4).

    `class`: each new class copies a random learned class. `mean`: all new classes start at the mean
    of the learned classes, rescaled per vector to their average root-mean-square. Factors of
    different classes are uncorrelated, so the plain mean would be near zero, where the cosine has
    no gradient.

    Args:
      learned: labels [L]; the first `known` of them are the learned classes. L is the same in every
        task, so all tasks share one program.
      known: at least 1.
    """
    if how == "class":
        return take(bank, learned[jax.random.randint(key, (count,), 0, known)])
    # A mask instead of a slice, because `known` is traced.
    share = (jnp.arange(len(learned)) < known) / known

    def mean_of(values):
        values = values[learned]
        mean = jnp.tensordot(share, values, 1)
        rms = jnp.sqrt(jnp.mean(values**2, axis=-1))
        usual = jnp.tensordot(share, rms, 1).mean()
        scale = usual / jnp.maximum(jnp.sqrt(jnp.mean(mean**2)), 1e-12)
        return jnp.broadcast_to(mean * scale, (count, *mean.shape))

    return jax.tree.map(mean_of, bank)


def empty_bank(rows: Bank, capacity: int) -> Bank:
    """A bank of zeros with `capacity` rows and the structure of `rows`."""
    return jax.tree.map(lambda v: jnp.zeros((capacity, *v.shape[1:]), v.dtype), rows)


@jax.jit  # one program for hundreds of small arrays
def take(bank: Bank, labels: jax.Array) -> Bank:
    """The rows of `labels` [G]; for one label, its row without a leading axis."""
    return jax.tree.map(lambda v: v[labels], bank)


@jax.jit
def put(bank: Bank, labels: jax.Array, rows: Bank) -> Bank:
    """Replaces the rows of `labels` [G]; all other rows stay bit-identical."""
    chex.assert_trees_all_equal_structs(bank, rows)
    for leaf in jax.tree.leaves(rows):
        chex.assert_axis_dimension(leaf, 0, len(labels))
    return jax.tree.map(lambda v, row: v.at[labels].set(row), bank, rows)


@jax.named_scope("modulation")
def lift(factors: Factors, family: Family) -> jax.Array:
    """F [..., Cin, Cout] in float32, from factors with any leading axes."""
    axes = factors["a"].ndim - 1
    function = family.lift
    for _ in range(axes):
        function = jax.vmap(function)
    return function(jax.tree.map(lambda v: v.astype(jnp.float32), factors))


def lift_all(bank: Bank, family: Family) -> dict[str, jax.Array]:
    """F of every layer; layers of the same shape are lifted together, which is faster."""
    # The U-Net has many layers of the same shape, so few large programs replace many small ones.
    by_shape: dict[tuple, list[str]] = {}
    for name, factors in bank.items():
        by_shape.setdefault((factors["b"].shape, factors["a"].shape), []).append(name)
    lifted = {}
    for names in by_shape.values():
        stacked = jax.tree.map(lambda *values: jnp.stack(values), *[bank[name] for name in names])
        lifted |= dict(zip(names, lift(stacked, family), strict=True))
    return {name: lifted[name] for name in bank}


@functools.partial(jax.jit, static_argnames="family_name")
def lift_layer(factors: Factors, family_name: str) -> jax.Array:
    """F [..., Cin, Cout] of one layer, for diagnosis."""
    return lift(factors, FAMILIES[family_name])


@functools.partial(jax.jit, static_argnames="family_name")
def effective_ranks(rows: Bank, family_name: str) -> dict[str, jax.Array]:
    """The effective rank of F of each layer and class: layer name -> [G]."""
    lifted = lift_all(rows, FAMILIES[family_name])
    return {name: effective_rank(matrices) for name, matrices in lifted.items()}


def modulation_collection(rows: Bank, family_name: str) -> dict:
    """The `modulation` variables of the U-Net for the G classes of `rows`."""
    family = FAMILIES[family_name]
    # Scaling before and after one shared convolution costs the same for any number of classes.
    if family.separable:
        by_name = {name: Modulation(scale_in=f["b"], scale_out=f["a"]) for name, f in rows.items()}
    else:
        lifted = lift_all(rows, family)
        by_name = {name: Modulation(matrix=f, add=family.adds) for name, f in lifted.items()}
    return flax.traverse_util.unflatten_dict(
        {(*name.split("/"), "f"): modulation for name, modulation in by_name.items()}
    )


def merge(trunk: dict, factors: Bank, family_name: str) -> dict:
    """Trunk parameters with the kernels W_y of one class (factors without a leading axis).

    The merged trunk is an ordinary U-Net, so the adapter does not slow sampling down.
    """
    family = FAMILIES[family_name]
    flat = flax.traverse_util.flatten_dict(trunk, sep="/")
    for name, matrix in lift_all(factors, family).items():
        modulation = Modulation(matrix=matrix[None], add=family.adds)
        flat[f"{name}/kernel"] = modulated_kernel(flat[f"{name}/kernel"], modulation)[0]
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def importance(rows: Bank, family_name: str) -> dict[str, tuple[float, float]]:
    """For each layer: how much the classes differ, and how far F is from no adapter (F12).

    First value: sqrt(mean over (o, c) of the variance over classes of F_y(o, c)), divided by the
    largest value over layers; it is zero exactly if a layer does not use the class. Second value:
    the root-mean-square of F - 1 (of F for an additive family).
    """
    family = FAMILIES[family_name]
    # F12: the paper names the score but not its formula; this one is ours.
    spread, deviation = {}, {}
    # One layer at a time, because F of all layers may not fit in memory.
    for name, factors in rows.items():
        # In float64 the mean of equal numbers is exact, so an unused layer has exactly the score 0.
        matrices = np.asarray(lift_layer(factors, family_name), np.float64)
        spread[name] = float(np.sqrt(matrices.var(axis=0).mean()))
        # The value of F that leaves the kernel as it is.
        neutral = 0.0 if family.adds else 1.0
        deviation[name] = float(np.sqrt(((matrices - neutral) ** 2).mean()))
    largest = max(spread.values()) or 1.0
    return {name: (spread[name] / largest, deviation[name]) for name in rows}
