"""Optimisers of the phases (F8): Adam, linear warm-up, clipping by global norm."""

import optax

from flcl import settings


def schedule(phase: settings.Phase, learning_rate: float) -> optax.Schedule:
    """Linear warm-up from 0, then constant."""
    if not phase.warmup_steps:
        return optax.constant_schedule(learning_rate)
    return optax.linear_schedule(0.0, learning_rate, phase.warmup_steps)


def adam(phase: settings.Phase) -> optax.GradientTransformation:
    """Adam at one learning rate for everything that trains."""
    return optax.chain(
        optax.clip_by_global_norm(phase.clip_norm),
        optax.adam(schedule(phase, phase.learning_rate)),
    )


def adam_by_part(phase: settings.Phase, rates: dict[str, float]) -> optax.GradientTransformation:
    """Adam with a learning rate per top-level part of the tree; clipping sees them together."""
    return optax.chain(
        optax.clip_by_global_norm(phase.clip_norm),
        optax.partition(
            {part: optax.adam(schedule(phase, rate)) for part, rate in rates.items()},
            lambda tree: {part: part for part in tree},
        ),
    )
