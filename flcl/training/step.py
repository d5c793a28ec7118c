"""One optimiser step: its state, its mathematics, and the programs that a phase compiles.

Phase 1 is the first task, phase 2 is all later tasks. Everything that differs between the tasks of
a phase is a traced array, so each phase compiles its step once.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from flcl.compiling import kept, run_once
from flcl.devices import sharding
from flcl.methods.base import Classifier, Method

Loss = Callable[..., jax.Array]  # (trainable, frozen, batch, key, progress) -> scalar


@flax.struct.dataclass
class TrainState:
    """The values that change while one task trains.

    Attributes:
      step: optimiser steps done in this task, int32.
      steps: optimiser steps of the whole task, int32.
      trainable: the only tree that is differentiated.
      ema: exponential moving average of `trainable`; it is kept when the task ends.
      opt_state: state of the optimiser; every task starts with a new one.
    """

    step: jax.Array
    steps: jax.Array
    trainable: Any
    ema: Any
    opt_state: Any


def create(trainable, optimizer: optax.GradientTransformation, steps) -> TrainState:
    """The state before the first of `steps` steps of a task."""
    # Copies, because every step takes the buffers of the state but must not take the memory's.
    trainable, ema = (jax.tree.map(jnp.copy, trainable) for _ in range(2))
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        zero, jnp.asarray(steps, jnp.int32), trainable, ema, optimizer.init(trainable)
    )


def train_step(
    loss: Loss, optimizer: optax.GradientTransformation, ema_decay: float
) -> Callable[..., tuple[TrainState, dict]]:
    """The step `(state, frozen, batch, key) -> (state, metrics)`.

    The decay of the average grows as (1 + step) / (10 + step) up to `ema_decay`. Without this, the
    average of a short task would still contain its start (ours).
    """
    # Optimisers of generators take no `progress`. With this wrapper one step serves both kinds.
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: TrainState, frozen, batch, key):
        # From the step number, not from a key that changes at every step: a resumed run then
        # draws the same numbers.
        key = jax.random.fold_in(key, state.step)
        # Both numbers are traced, so a task of another length needs no new program.
        progress = state.step / state.steps
        # Only the first argument is differentiated: no gradient of a frozen trunk is computed.
        value, grads = jax.value_and_grad(loss)(state.trainable, frozen, batch, key, progress)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.trainable, progress=progress
        )
        trainable = optax.apply_updates(state.trainable, updates)
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(trainable, state.ema, 1.0 - decay)
        # The norm before clipping, which shows how often clipping is active.
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, state.steps, trainable, ema, opt_state), metrics

    return step


def compile_step(step, state: TrainState, frozen, method: Method, mesh: Mesh, per_call: int = 1):
    """`jax.jit` of a step with explicit shardings and a donated state.

    `state` and `frozen` may be abstract. The batch entries in `method.spread` are divided over all
    devices; `method.divides` decides how the state is divided. per_call: steps per call; if it is
    above 1, batches and metrics have a leading axis of this length.
    """
    # The state has the same sharding before and after a step, so no step has to move it.
    same = sharding.replicated(mesh)
    state_sharding = sharding.of_tree(state, mesh, method.divides)
    batch = {name: sharding.of_entry(name, method.spread, mesh) for name in ("images", "labels")}

    def one(state, frozen, batch, key):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # losses read the mesh
            return step(state, frozen, batch, key)

    # A scan compiles the body once; a Python loop would compile `per_call` copies of the step.
    def several(state, frozen, batches, key):
        return jax.lax.scan(lambda state, batch: one(state, frozen, batch, key), state, batches)

    return jax.jit(
        one if per_call == 1 else several,
        in_shardings=(
            state_sharding,
            sharding.of_tree(frozen, mesh, method.divides),
            batch if per_call == 1 else {k: sharding.stacked(v) for k, v in batch.items()},
            same,
        ),
        out_shardings=(state_sharding, same),
        donate_argnums=0,  # the new state is written into the memory of the old one
    )


class Phase:
    """The compiled programs of one phase; every task of the phase calls the same ones.

    Attributes:
      method: the method that trains.
      index: 1 or 2.
      mesh: the devices.
      per_call: optimiser steps per call.
      step: one optimiser step, compiled.
      create: `(trainable, steps)` -> the state before the first step.
      losses: for a classifier, `(trainable, frozen, images, labels)` -> the loss of each image.
    """

    def __init__(self, method: Method, index: int, trainable, frozen, mesh: Mesh):
        self.method, self.index, self.mesh = method, index, mesh
        self.per_call = method.run.runtime.steps_per_call
        optimizer = method.optimizer(index)

        def loss(trainable, frozen, batch, key, progress):
            return method.loss(index, trainable, frozen, batch, key, progress)

        def start(tree, total):
            return create(tree, optimizer, total)

        # From shapes only. A save inside a task is restored into this structure.
        self.abstract = jax.eval_shape(start, trainable, 1)
        self.create = jax.jit(
            start,
            out_shardings=sharding.of_tree(self.abstract, mesh, method.divides),
            compiler_options=run_once(),
        )
        step = train_step(loss, optimizer, method.ema_decay(index))
        self.step = compile_step(step, self.abstract, frozen, method, mesh)
        # jit compiles at the first call: with `per_call` = 1 this program is never made.
        self._steps = compile_step(step, self.abstract, frozen, method, mesh, self.per_call)
        # The short run that measures the complexity of a task needs the loss of each image (M4).
        if isinstance(method, Classifier):
            self.losses = jax.jit(
                lambda *arguments: method.task_losses(index, *arguments),
                out_shardings=sharding.replicated(mesh),
            )

    def advance(self, state, frozen, batches: list[dict], key) -> tuple[TrainState, list[dict]]:
        """The state after one step for each of `batches`, and the metrics in the same order.

        `per_call` batches are one call; if there are fewer, each batch is its own call. A metric
        is a number, or an array [per_call] from a call of several steps.
        """
        if len(batches) == self.per_call > 1:
            placed = sharding.place_batches(batches, self.mesh, self.method.spread)
            state, metrics = self._steps(state, frozen, placed, key)
            return state, [metrics]
        metrics_of_steps = []
        for batch in batches:
            placed = sharding.place_batch(batch, self.mesh, self.method.spread)
            state, metrics = self.step(state, frozen, placed, key)
            metrics_of_steps.append(metrics)
        return state, metrics_of_steps


def phase_of(method: Method, index: int, trainable, frozen, mesh: Mesh) -> Phase:
    """The `Phase` of these shapes; one that the process has already compiled is used again."""
    shapes, structure = jax.tree.flatten(jax.eval_shape(lambda: (trainable, frozen)))
    return _phase_of_shapes(method, index, structure, tuple(shapes), mesh)


@kept
def _phase_of_shapes(method: Method, index: int, structure, shapes: tuple, mesh: Mesh) -> Phase:
    return Phase(method, index, *jax.tree.unflatten(structure, shapes), mesh)


@kept
def aligned(method: Classifier, mesh: Mesh):
    """`Classifier.align`, compiled once for all tasks: every device computes the same."""
    return jax.jit(method.align, out_shardings=sharding.replicated(mesh))
