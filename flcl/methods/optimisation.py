"""Optimisers of generators (F8) and classifiers (M8)."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import optax

from flcl import settings

# The value in the public code of SD-LoRA.
SGD_MOMENTUM = 0.9


def schedule(phase: settings.Phase, learning_rate: float) -> optax.Schedule:
    """Linear warm-up from 0, then constant."""
    if not phase.warmup_steps:
        return optax.constant_schedule(learning_rate)
    return optax.linear_schedule(0.0, learning_rate, phase.warmup_steps)


def adam(phase: settings.Phase) -> optax.GradientTransformation:
    """Adam with one learning rate for all trainable arrays."""
    return optax.chain(
        optax.clip_by_global_norm(phase.clip_norm),
        optax.adam(schedule(phase, phase.learning_rate)),
    )


def adam_by_part(phase: settings.Phase, rates: dict[str, float]) -> optax.GradientTransformation:
    """Adam with a learning rate per top-level part of the tree; clipping uses the global norm."""
    return optax.chain(
        optax.clip_by_global_norm(phase.clip_norm),
        optax.partition(
            {part: optax.adam(schedule(phase, rate)) for part, rate in rates.items()},
            lambda tree: {part: part for part in tree},
        ),
    )


def apart(phase: settings.Phase, learning_rate: float, due=None) -> optax.GradientTransformation:
    """Adam for `model` and for `classifier`, each as if the other did not exist.

    Each part is clipped by its own norm. learning_rate: of the classifier, without a warm-up.
    due: (step) -> whether the classifier trains in this step; None = in every step. In all other
    steps its optimiser does not move either.
    """
    alone = dataclasses.replace(phase, learning_rate=learning_rate, warmup_steps=0)
    classifier = adam(alone)
    if due is not None:
        classifier = optax.transforms.conditionally_mask(classifier, due)
    parts = {"model": adam(phase), "classifier": classifier}
    return optax.partition(parts, lambda tree: {part: part for part in tree})


class Part(NamedTuple):
    """How one top-level part of a tree trains.

    Attributes:
      learning_rate: the rate before the schedule is applied.
      until: share of the task's steps after which the part no longer changes.
    """

    learning_rate: float
    until: float = 1.0


def by_progress(train: settings.HeadTrain, parts: dict[str, Part]) -> optax.GradientTransformation:
    """Adam or SGD with a schedule over the finished share of a task's steps.

    `update` takes this share as `progress`. It is traced, so tasks of any length share one compiled
    step. Clipping uses the global norm of all parts.
    """
    # Without a rate: optax's schedules count steps, and here the number of steps of a task is
    # traced.
    direction = {
        "adam": optax.scale_by_adam,
        "sgd": lambda: optax.trace(decay=SGD_MOMENTUM),
    }[train.optimizer]
    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.partition(
            {
                name: optax.chain(direction(), _scale_by_progress(train, part))
                for name, part in parts.items()
            },
            lambda tree: {name: name for name in tree},
        ),
    )


def rate(train: settings.HeadTrain, progress):
    """Factor on the learning rate: warm-up, then constant or a cosine that falls to 0."""
    factor = jnp.asarray(1.0)
    if train.schedule == "cosine":
        # The cosine begins where the warm-up ends.
        left = jnp.clip((progress - train.warmup) / (1.0 - train.warmup), 0.0, 1.0)
        factor = 0.5 * (1.0 + jnp.cos(jnp.pi * left))
    if train.warmup:
        factor = jnp.where(progress < train.warmup, progress / train.warmup, factor)
    return factor


def _scale_by_progress(train: settings.HeadTrain, part: Part):
    def update(updates, state, params=None, *, progress, **_):
        del params
        # A factor instead of a condition in Python, because `progress` is traced.
        moving = jnp.where(progress < part.until, 1.0, 0.0)
        factor = -part.learning_rate * rate(train, progress) * moving
        return optax.tree.scale(factor, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
