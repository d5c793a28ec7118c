"""DRS by need: two choices of a task's rank that provably follow what the task needs (ours).

`energy:SHARE` trains all columns and then keeps the least rank whose cores change the outputs of
their maps nearly as much. `holdout:TOLERANCE` tries the candidates in a short run before the task
and takes the least rank whose held-out loss is nearly that of the largest.
"""

import jax
import jax.numpy as jnp
import numpy as np

from flcl import settings
from flcl.adapters.factorized import Shapes, map_sites, task_core
from flcl.adapters.rank import FixedRank, LearnedRank, RankChoice, first_columns


def truncated(factors: dict, moments: dict, share: float) -> tuple[dict, jax.Array]:
    """Factors of the least rank that keeps `share` of the change of all outputs, and that rank.

    A map's output changes by B C' A' x, with orthonormal B. Over the images this has the mean
    square tr(C' S C) with S = A' E[x x'] A. The best core of rank k is that of the k largest
    singular values of S^(1/2) C (Eckart and Young 1936), which is C V_k V_k' with the largest
    eigenvectors V_k of C' S C. factors: M and N [r, r] of each map; moments: S [r, r] of each map,
    up to one common factor. The new M and N are C V_k and V_k, with columns of zero after the rank.
    """
    cores = task_core(factors, jnp.ones(_columns(factors)))

    def spectrum(core, moment):
        product = jnp.matmul(moment, core, precision="highest")
        values, vectors = jnp.linalg.eigh(jnp.matmul(core.T, product, precision="highest"))
        # `eigh` sorts upwards. A tiny negative value is the rounding of zero.
        return {"energy": jnp.maximum(values[::-1], 0.0), "vectors": vectors[:, ::-1]}

    spectra = map_sites(spectrum, cores, moments)
    energy = sum(entry["energy"] for sites in spectra.values() for entry in sites.values())
    kept = jnp.cumsum(energy)
    # One rank for all maps (M3). At least one column, also if the task has changed nothing.
    rank = 1 + jnp.sum(kept < share * kept[-1])
    keep = (jnp.arange(energy.size) < rank).astype(jnp.float32)

    def factors_of(core, entry):
        vectors = entry["vectors"] * keep[None]
        return {"m": jnp.matmul(core, vectors, precision="highest"), "n": vectors}

    return map_sites(factors_of, cores, spectra), rank


def least_rank(losses, candidates: tuple[int, ...], tolerance: float) -> int:
    """The least candidate whose loss is at most `tolerance` above that of the largest candidate."""
    near = np.asarray(losses) <= losses[-1] + tolerance
    return candidates[int(np.argmax(near))]


class EnergyRank(RankChoice):
    """`energy:SHARE`. Memory: `ranks` [T], and the `moments` [r, r] of each map's inputs.

    The moments are those of the images of the newest task, before it trained.
    """

    def __init__(self, share: float, rank: int, shapes: Shapes):
        self._share, self._rank, self._shapes = share, rank, shapes

    def memory(self, tasks):
        """All columns, and inputs of unit variance that are not measured yet."""
        return {
            "ranks": jnp.full(tasks, self._rank),
            "moments": map_sites(lambda _: jnp.eye(self._rank), self._shapes),
        }

    def columns(self, trainable, frozen, key, progress):
        """All columns, without a penalty."""
        del trainable, frozen, key, progress
        return jnp.ones(self._rank), jnp.zeros(())

    def finish(self, memory, index, factors):
        """See `truncated`."""
        factors, rank = truncated(factors, memory["moments"], self._share)
        return factors, {"ranks": memory["ranks"].at[index - 1].set(rank)}

    def kept(self, memory, index):
        """The rank that `finish` chose."""
        return int(memory["ranks"][index - 1])

    def report(self, memory, index):
        """All None: no complexity is measured."""
        del memory, index
        return {"candidates": [], "complexity": None, "probabilities": None}


class HoldoutRank(RankChoice):
    """`holdout:TOLERANCE`. Memory: `ranks` [T]; `rank_losses` [T, K], the loss of each candidate.

    The losses are divided by ln(classes), as H is. In the short run every step draws one candidate
    and trains only its columns, so one set of factors serves all candidates.
    """

    def __init__(self, selection: settings.RankSelection, tolerance: float, rank: int):
        self._candidates, self._tolerance = selection.candidates, tolerance
        self._rank = rank

    def memory(self, tasks):
        """All columns; no loss is measured yet."""
        losses = jnp.zeros((tasks, len(self._candidates)))
        return {"ranks": jnp.full(tasks, self._rank), "rank_losses": losses}

    def measures(self, index):
        """In every task but the first, which uses all columns."""
        return index > 1

    def begin(self, memory, index):
        """The rank, and whether this is the short run."""
        if index == 1:
            return {}, {}
        return {}, {"probe": jnp.asarray(False), "rank": memory["ranks"][index - 1]}

    def probing(self, frozen):
        """Random columns in training; the loss is measured with each candidate."""
        probe = {**frozen, "probe": jnp.ones_like(frozen["probe"])}
        ranks = [jnp.full_like(frozen["rank"], rank) for rank in self._candidates]
        return probe, [{**frozen, "rank": rank} for rank in ranks]

    def measured(self, memory, frozen, index, losses):
        """Chooses the rank from the loss of each candidate."""
        rank = least_rank(losses, self._candidates, self._tolerance)
        entries = {
            "ranks": memory["ranks"].at[index - 1].set(rank),
            "rank_losses": memory["rank_losses"].at[index - 1].set(jnp.asarray(losses)),
        }
        return memory | entries, {**frozen, "rank": entries["ranks"][index - 1]}

    def columns(self, trainable, frozen, key, progress):
        """The columns of the rank; in the short run those of a random candidate."""
        del trainable, progress
        drawn = jax.random.choice(key, jnp.asarray(self._candidates))
        rank = jnp.where(frozen["probe"], drawn, frozen["rank"])
        return (jnp.arange(self._rank) < rank).astype(jnp.float32), jnp.zeros(())

    def finish(self, memory, index, factors):
        """The first columns."""
        return first_columns(factors, jnp.arange(self._rank) < memory["ranks"][index - 1]), {}

    def kept(self, memory, index):
        """The rank that was chosen before the task."""
        return int(memory["ranks"][index - 1])

    def report(self, memory, index):
        """The held-out loss of each candidate; None for the first task."""
        losses = memory["rank_losses"][index - 1].tolist() if index > 1 else None
        return {
            "candidates": list(self._candidates),
            "complexity": losses[-1] if losses else None,
            "probabilities": None,
            "held_out": losses,
        }


def rank_choice(
    selection: settings.RankSelection,
    kind: str,
    number: float,
    shapes: Shapes,
    rank: int,
    joint: bool,
) -> RankChoice:
    """The choice of ranks that `(kind, number)` of `rank.selector` names.

    joint: whether the run has one task for ever.
    """
    if kind == "fixed":
        return FixedRank(rank, int(number))
    if kind == "energy":
        return EnergyRank(number, rank, shapes)
    if kind == "holdout":
        return HoldoutRank(selection, number, rank)
    return LearnedRank(selection, rank, joint)


def _columns(factors: dict) -> int:
    """The number of columns r of M and N."""
    return jax.tree.leaves(factors)[0].shape[1]
