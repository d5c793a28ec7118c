"""How the cores of finished tasks combine: their sum, the newest alone, or one scale each (M1).

A core is M_t N_t' [r, r] of each adapted map. Memory: `cores` [K, r, r] and `scales` [K] per map,
with K = 1, or one slot for every task. A combination is one class here and one line in
`COMBINATIONS`.
"""

import jax
import jax.numpy as jnp

from flcl.adapters.factorized import Shapes, map_sites


class SummedCores:
    """`sum`: one core per map, to which every task adds its own; the memory does not grow."""

    trains_scales = False

    def __init__(self, tasks: int):
        del tasks
        self.slots = 1

    def memory(self, shapes: Shapes, rank: int) -> dict:
        """No core yet, and scales of one."""
        return {
            "cores": map_sites(lambda _: jnp.zeros((self.slots, rank, rank)), shapes),
            "scales": map_sites(lambda _: jnp.ones(self.slots), shapes),
        }

    def slot(self, index: int) -> int:
        """Where the core of task `index` goes."""
        del index
        return 0

    def past(self, cores: dict, scales: dict | None) -> dict:
        """What earlier tasks contribute while a later one trains, [r, r] per map."""
        return self.total(cores, scales)

    def total(self, cores: dict, scales: dict | None) -> dict:
        """What all tasks contribute, [r, r] per map."""
        del scales
        return jax.tree.map(lambda core: core[0], cores)

    def fold(self, cores: dict, index: int, core: dict) -> dict:
        """`cores` with the core of the finished task `index`."""
        slot = self.slot(index)
        return map_sites(lambda c, new: c.at[slot].set(c[slot] + new), cores, core)


class LastCore(SummedCores):
    """`last`: only the newest task's core counts, and is kept."""

    def past(self, cores, scales):
        """Nothing."""
        del scales
        return jax.tree.map(lambda core: jnp.zeros_like(core[0]), cores)

    def fold(self, cores, index, core):
        """The new core in place of the one before."""
        slot = self.slot(index)
        return map_sites(lambda c, new: c.at[slot].set(new), cores, core)


class ScaledCores(LastCore):
    """`scaled`: every task keeps its core; how much each counts is learned by later tasks."""

    trains_scales = True

    def __init__(self, tasks: int):
        super().__init__(tasks)
        self.slots = tasks

    def slot(self, index):
        """A slot for every task."""
        return index - 1

    def past(self, cores, scales):
        """All cores so far; slots to come are zero."""
        return self.total(cores, scales)

    def total(self, cores, scales):
        """The weighted sum."""
        return jax.tree.map(lambda core, scale: jnp.einsum("k,kij->ij", scale, core), cores, scales)


COMBINATIONS = {"sum": SummedCores, "last": LastCore, "scaled": ScaledCores}
