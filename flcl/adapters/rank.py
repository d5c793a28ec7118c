"""DRS: the rank of a task from its complexity H, by a Gumbel-Softmax over candidates.

FM-LoRA (Yu et al. 2025) prints p(r | T_t) = softmax_r(w_r H / tau) and r_t = argmax. For H > 0 that
argmax is the one of w_r whatever H is, so the rank cannot follow the complexity; the form used by
default centres H on the first task (M4), and the printed one stays as `literal`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from flcl import settings

EPSILON = 1e-6
"""Keeps a first task of zero complexity from dividing by zero."""


def init_selector(candidates: tuple[int, ...]) -> dict:
    """w_r = (r - mean) / std, so that more complexity prefers more columns; b_r = 0 (ours)."""
    ranks = np.asarray(candidates, np.float32)
    spread = ranks.std() or 1.0
    return {"weight": jnp.asarray((ranks - ranks.mean()) / spread), "bias": jnp.zeros(len(ranks))}


def centre(complexity: jax.Array, first: jax.Array) -> jax.Array:
    """h_t = (H_t - H_1) / (|H_1| + epsilon) (M4)."""
    return (complexity - first) / (jnp.abs(first) + EPSILON)


def logits(selector: dict, complexity: jax.Array, first: jax.Array, kind: str) -> jax.Array:
    """Logit of each candidate, [K].

    kind: `centred`, w_r h_t + b_r; or `literal`, the printed w_r H_t.
    """
    if kind == "literal":
        return selector["weight"] * complexity
    return selector["weight"] * centre(complexity, first) + selector["bias"]


def temperature(progress: jax.Array, rank: settings.RankSelection) -> jax.Array:
    """Falls geometrically from `temperature` to `final_temperature` over the schedule (M5)."""
    share = jnp.clip(progress / rank.schedule, 0.0, 1.0)
    return rank.temperature * (rank.final_temperature / rank.temperature) ** share


def straight_through(key: jax.Array, logits: jax.Array, tau: jax.Array) -> jax.Array:
    """One candidate, [K]: one-hot of the perturbed logits, with the gradient of the soft choice."""
    noisy = (logits + jax.random.gumbel(key, logits.shape)) / tau
    soft = jax.nn.softmax(noisy)
    hard = jax.nn.one_hot(jnp.argmax(noisy), logits.size)
    return hard + soft - jax.lax.stop_gradient(soft)


def columns(choice: jax.Array, candidates: tuple[int, ...], rank: int) -> jax.Array:
    """Weight of each of the r columns, [r]: column j counts all candidates above j (M5)."""
    keeps = np.arange(rank)[None, :] < np.asarray(candidates)[:, None]
    return choice @ keeps.astype(np.float32)


def choose(
    key: jax.Array,
    logits: jax.Array,
    progress: jax.Array,
    run_rank: settings.RankSelection,
    rank: int,
) -> tuple[jax.Array, jax.Array]:
    """Column weights [r] and the penalty `lambda E[r] / r` at this point of a task.

    Up to `schedule` the choice is drawn; from then on it is the argmax, without a gradient.
    """
    candidates = run_rank.candidates
    selecting = progress < run_rank.schedule
    tau = temperature(progress, run_rank)
    fixed = jax.nn.one_hot(jnp.argmax(logits), len(candidates))
    drawn = straight_through(key, logits, tau)
    expected = jax.nn.softmax(logits / tau) @ np.asarray(candidates, np.float32)
    choice = jnp.where(selecting, drawn, jax.lax.stop_gradient(fixed))
    penalty = jnp.where(selecting, run_rank.penalty * expected / rank, 0.0)
    return columns(choice, candidates, rank), penalty
