"""What changes while one task trains."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """State of one task.

    Attributes:
      step: optimiser steps done in this task, int32.
      steps: optimiser steps that the task takes, int32.
      trainable: the only tree that is differentiated.
      ema: exponential moving average of `trainable`; what is kept when the task ends.
      opt_state: of the optimiser; starts afresh with every task.
    """

    step: jax.Array
    steps: jax.Array
    trainable: Any
    ema: Any
    opt_state: Any


def create(trainable, optimizer: optax.GradientTransformation, steps) -> TrainState:
    """State at the first of `steps` steps of a task."""
    # Buffers of its own: the state is donated to every step, the memory it came from is not.
    trainable, ema = (jax.tree.map(jnp.copy, trainable) for _ in range(2))
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        zero, jnp.asarray(steps, jnp.int32), trainable, ema, optimizer.init(trainable)
    )
