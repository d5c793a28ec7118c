"""DRS: the rank of a task from its complexity H, by a Gumbel-Softmax over candidates.

FM-LoRA (Yu et al. 2025) prints p(r | T_t) = softmax_r(w_r H / tau) and r_t = argmax. For H > 0 this
argmax is the argmax of w_r for every H, so the rank cannot follow the complexity. The default form
centres H on the first task (M4); the printed form is available as `literal`. At every temperature
one distribution, `probabilities`, is drawn from, penalised and reported.
"""

import abc

import chex
import jax
import jax.numpy as jnp
import numpy as np

from flcl import settings

LEAST_COMPLEXITY = 0.05
"""The smallest H by which others are divided: 5 % of the loss of a uniform guess (ours).

A first task without errors has an H near zero, and relative to it every task would look a thousand
times as hard.
"""


def init_selector(candidates: tuple[int, ...]) -> dict:
    """w_r = (r - mean) / std, so higher complexity prefers more columns; b_r = 0 (ours)."""
    ranks = np.asarray(candidates, np.float32)
    # A single candidate has no spread.
    spread = ranks.std() or 1.0
    return {"weight": jnp.asarray((ranks - ranks.mean()) / spread), "bias": jnp.zeros(len(ranks))}


def centre(complexity: jax.Array, first: jax.Array) -> jax.Array:
    """h_t = (H_t - H_1) / max(|H_1|, 0.05) (M4)."""
    return (complexity - first) / jnp.maximum(jnp.abs(first), LEAST_COMPLEXITY)


def logits(selector: dict, complexity: jax.Array, first: jax.Array, kind: str) -> jax.Array:
    """The logit of each candidate, [K].

    kind: `centred`, w_r h_t + b_r; or `literal`, the printed w_r H_t.
    """
    # The paper's equation. For H > 0 its largest logit is always that of the largest w.
    if kind == "literal":
        return selector["weight"] * complexity
    return selector["weight"] * centre(complexity, first) + selector["bias"]


def temperature(progress: jax.Array, rank: settings.RankSelection) -> jax.Array:
    """Geometric decay from `temperature` to `final_temperature` over the schedule (M5)."""
    # A high temperature explores the candidates; a low one comes close to the final argmax.
    share = jnp.clip(progress / rank.schedule, 0.0, 1.0)
    return rank.temperature * (rank.final_temperature / rank.temperature) ** share


def probabilities(logits: jax.Array, tau: jax.Array | float) -> jax.Array:
    """p(r) = softmax(logits / tau) of each candidate, [K]: the paper's equation."""
    return jax.nn.softmax(_sharpened(logits, tau))


def straight_through(key: jax.Array, logits: jax.Array, tau: jax.Array) -> jax.Array:
    """A draw [K] from `probabilities`: one-hot, with the gradient of the soft choice."""
    # Gumbel-max: the argmax of x + noise is a draw from softmax(x). So x is divided by tau and the
    # noise is not; if both were divided, tau would not change the draw.
    noisy = _sharpened(logits, tau) + jax.random.gumbel(key, logits.shape)
    soft = jax.nn.softmax(noisy)
    hard = jax.nn.one_hot(jnp.argmax(noisy), logits.size)
    return hard + soft - jax.lax.stop_gradient(soft)


def _sharpened(logits, tau):
    # Relative to the largest logit: a tiny tau then gives -inf for the others, and no NaN.
    return (logits - jax.lax.stop_gradient(logits.max())) / tau


def columns(choice: jax.Array, candidates: tuple[int, ...], rank: int) -> jax.Array:
    """Weight of each column, [r]: column j adds the weights of all candidates above j (M5)."""
    chex.assert_shape(choice, (len(candidates),))
    # The candidates are nested: rank r keeps the first r columns, so small ranks share their
    # columns with larger ones.
    keeps = np.arange(rank)[None, :] < np.asarray(candidates)[:, None]
    return choice @ keeps.astype(np.float32)


def first_columns(factors: dict, keep: jax.Array) -> dict:
    """M and N [r, r] of each map with each column times an entry of `keep` [r], 0 or 1."""
    return jax.tree.map(lambda factor: factor * keep[None], factors)


def choose(
    key: jax.Array,
    logits: jax.Array,
    progress: jax.Array,
    selection: settings.RankSelection,
    rank: int,
) -> tuple[jax.Array, jax.Array]:
    """Column weights [r] and the penalty `lambda E[r] / r` at one point of a task.

    Up to `schedule` the choice is random; after that it is the argmax, without a gradient.
    """
    candidates = selection.candidates
    selecting = progress < selection.schedule
    tau = temperature(progress, selection)
    fixed = jax.nn.one_hot(jnp.argmax(logits), len(candidates))
    drawn = straight_through(key, logits, tau)
    # A loss alone never prefers a small rank: a column that is not needed costs it nothing (M5).
    expected = probabilities(logits, tau) @ np.asarray(candidates, np.float32)
    # Both are computed and one is used: `progress` is traced, so the whole task is one program.
    choice = jnp.where(selecting, drawn, jax.lax.stop_gradient(fixed))
    penalty = jnp.where(selecting, selection.penalty * expected / rank, 0.0)
    return columns(choice, candidates, rank), penalty


class RankChoice(abc.ABC):
    """Chooses the columns of M and N that each task after the first uses. Task 1 uses all r.

    By default nothing is stored, trained or measured for it.

    Attributes:
      learned: whether a selector trains with the task.
    """

    learned = False

    def memory(self, tasks: int) -> dict:
        """Its entries in the memory before the first task."""
        del tasks
        return {}

    def begin(self, memory: dict, index: int) -> tuple[dict, dict]:
        """Its entries in `trainable` and `frozen` of task `index`."""
        del memory, index
        return {}, {}

    def measures(self, index: int) -> bool:
        """Whether a short run before task `index` measures held-out losses."""
        del index
        return False

    def probing(self, frozen: dict) -> tuple[dict, list[dict]]:
        """`frozen` for the training of the short run, and for each loss that it measures."""
        return frozen, [frozen]

    def measured(self, memory: dict, frozen: dict, index: int, losses) -> tuple[dict, dict]:
        """`(memory, frozen)` with the losses of the short run, each divided by ln(classes)."""
        del index, losses
        return memory, frozen

    @abc.abstractmethod
    def columns(self, trainable: dict, frozen: dict, key, progress) -> tuple[jax.Array, jax.Array]:
        """Weight of each column [r] in the training of a later task, and the rank penalty."""

    @abc.abstractmethod
    def finish(self, memory: dict, index: int, factors: dict) -> tuple[dict, dict]:
        """What a later task keeps: M and N with columns of zero after its rank, memory entries."""

    @abc.abstractmethod
    def kept(self, memory: dict, index: int) -> int:
        """The rank of a finished later task."""

    @abc.abstractmethod
    def report(self, memory: dict, index: int) -> dict:
        """What the choice was made from, as entries of `RankSelection`; None = unknown."""


class FixedRank(RankChoice):
    """The same rank for every later task: `full` and `fixed:R`."""

    def __init__(self, rank: int, fixed: int):
        self._fixed = fixed
        self._columns = (np.arange(rank) < fixed).astype(np.float32)

    def columns(self, trainable, frozen, key, progress):
        """The first R columns, without a penalty."""
        del trainable, frozen, key, progress
        return self._columns, jnp.zeros(())

    def finish(self, memory, index, factors):
        """The first R columns."""
        del memory, index
        return first_columns(factors, self._columns), {}

    def kept(self, memory, index):
        """R."""
        del memory, index
        return self._fixed

    def report(self, memory, index):
        """No candidates, and no complexity."""
        del memory, index
        return {"candidates": [], "complexity": None, "probabilities": None}


class LearnedRank(RankChoice):
    """DRS: `centred`, or `literal` as printed in the paper.

    Memory: `selector` (w, b over the candidates) and `complexity` [T].
    """

    learned = True

    def __init__(self, selection: settings.RankSelection, rank: int, joint: bool):
        self._selection, self._rank, self._joint = selection, rank, joint

    def memory(self, tasks):
        """A new selector; no complexity is measured yet."""
        selector = init_selector(self._selection.candidates)
        return {"selector": selector, "complexity": jnp.zeros(tasks)}

    def begin(self, memory, index):
        """Every task has a new selector: in an old one, the penalty would outweigh H."""
        measured = memory["complexity"]
        frozen = {
            "probe": jnp.asarray(False),
            "first": measured[0],
            "complexity": measured[index - 1],
        }
        # Initialised again (M5): on the digits, a selector that was kept gave the hardest task
        # the smallest rank.
        fresh = {"selector": init_selector(self._selection.candidates)}
        return ({} if index == 1 else fresh), frozen

    def measures(self, index):
        """In every task, because others are compared with the first; not in joint training."""
        return not self._joint

    def probing(self, frozen):
        """All columns: the short run measures how hard the task is, whatever its rank will be."""
        # A traced flag: the short run uses the compiled step of its phase.
        frozen = {**frozen, "probe": jnp.ones_like(frozen["probe"])}
        return frozen, [frozen]

    def measured(self, memory, frozen, index, losses):
        """H of the task; in task 1 it is also the first, so its centred value is 0 (M4)."""
        measured = memory["complexity"].at[index - 1].set(losses[0])
        known = {"complexity": measured[index - 1], "first": measured[0]}
        return {**memory, "complexity": measured}, {**frozen, **known}

    def columns(self, trainable, frozen, key, progress):
        """First random, then fixed: see `choose`."""
        logits = self._logits(trainable["selector"], frozen["complexity"], frozen["first"])
        weights, penalty = choose(key, logits, progress, self._selection, self._rank)
        probe, full = frozen["probe"], jnp.ones(self._rank)
        return jnp.where(probe, full, weights), jnp.where(probe, 0.0, penalty)

    def finish(self, memory, index, factors):
        """The columns of the most likely candidate."""
        logits = self._of_task(memory, index)
        # The paper: r_t = argmax p(r | T_t), without noise.
        likeliest = jax.nn.one_hot(jnp.argmax(logits), logits.size)
        keep = columns(likeliest, self._selection.candidates, self._rank)
        return first_columns(factors, keep), {}

    def kept(self, memory, index):
        """The most likely candidate."""
        return self._selection.candidates[int(jnp.argmax(self._of_task(memory, index)))]

    def report(self, memory, index):
        """p(r) at the final temperature of the choice."""
        measured, later = memory["complexity"], index > 1
        logits = self._of_task(memory, index)
        p = probabilities(logits, self._selection.final_temperature)
        return {
            "complexity": float(measured[index - 1]) if not self._joint else None,
            "centred": float(centre(measured[index - 1], measured[0])) if later else None,
            "candidates": list(self._selection.candidates),
            "probabilities": p.tolist() if later else None,
        }

    def _of_task(self, memory, index):
        measured = memory["complexity"]
        return self._logits(memory["selector"], measured[index - 1], measured[0])

    def _logits(self, selector, complexity, first):
        return logits(selector, complexity, first, self._selection.selector)
