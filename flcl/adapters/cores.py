"""How the cores of finished tasks are combined: sum, newest only, or one scale each (M1).

A core is M_t N_t' [r, r] of an adapted map. Memory: `cores` [K, r, r] and `scales` [K] per map,
with K = 1 or one slot for every task. A new combination is one class here and one line in
`COMBINATIONS`.
"""

import jax
import jax.numpy as jnp

from flcl.adapters.factorized import Shapes, map_sites


class SummedCores:
    """`sum`: one core per map; every task adds its core to it, and the memory does not grow."""

    trains_scales = False

    def __init__(self, tasks: int):
        del tasks
        self.slots = 1

    def memory(self, shapes: Shapes, rank: int) -> dict:
        """Cores of zero and scales of one."""
        # One slot: this is why the memory does not grow with the tasks (M1).
        return {
            "cores": map_sites(lambda _: jnp.zeros((self.slots, rank, rank)), shapes),
            "scales": map_sites(lambda _: jnp.ones(self.slots), shapes),
        }

    def slot(self, index: int) -> int:
        """The slot for the core of task `index`."""
        del index
        return 0

    def past(self, cores: dict, scales: dict | None) -> dict:
        """The sum of earlier tasks while a later task trains, [r, r] per map."""
        return self.total(cores, scales)

    def total(self, cores: dict, scales: dict | None) -> dict:
        """The core of all tasks, [r, r] per map."""
        del scales
        return jax.tree.map(lambda core: core[0], cores)

    def fold(self, cores: dict, index: int, core: dict) -> dict:
        """Adds the core of the finished task `index` to `cores`."""
        slot = self.slot(index)
        # The update is linear in the core, so adding cores adds the updates of the tasks (M1).
        return map_sites(lambda c, new: c.at[slot].set(c[slot] + new), cores, core)


class LastCore(SummedCores):
    """`last`: only the core of the newest task is used and stored."""

    def past(self, cores, scales):
        """Zero: earlier tasks are not used."""
        del scales
        return jax.tree.map(lambda core: jnp.zeros_like(core[0]), cores)

    def fold(self, cores, index, core):
        """Replaces the old core by the new one."""
        slot = self.slot(index)
        return map_sites(lambda c, new: c.at[slot].set(new), cores, core)


class ScaledCores(LastCore):
    """`scaled`: every task has its own core; later tasks learn the scale of each core."""

    trains_scales = True

    def __init__(self, tasks: int):
        super().__init__(tasks)
        # One r x r core per task and map, so this memory grows, but slowly.
        self.slots = tasks

    def slot(self, index):
        """Every task has a slot."""
        return index - 1

    def past(self, cores, scales):
        """All cores so far; later slots are zero."""
        return self.total(cores, scales)

    def total(self, cores, scales):
        """The weighted sum of the cores."""
        return jax.tree.map(lambda core, scale: jnp.einsum("k,kij->ij", scale, core), cores, scales)


COMBINATIONS = {"sum": SummedCores, "last": LastCore, "scaled": ScaledCores}
