"""One pure train step, compiled once per phase."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from flcl.devices import mesh as meshes
from flcl.train.state import TrainState

Loss = Callable[..., jax.Array]  # (trainable, frozen, batch, key, progress) -> scalar


def train_step(
    loss: Loss, optimizer: optax.GradientTransformation, ema_decay: float
) -> Callable[..., tuple[TrainState, dict]]:
    """The step `(state, frozen, batch, key) -> (state, metrics)`.

    The decay of the average grows as (1 + step) / (10 + step) up to `ema_decay`, so that short
    tasks are not averaged with their start (ours).
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        progress = state.step / state.steps
        value, grads = jax.value_and_grad(loss)(state.trainable, frozen, batch, key, progress)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.trainable, progress=progress
        )
        trainable = optax.apply_updates(state.trainable, updates)
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(trainable, state.ema, 1.0 - decay)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, state.steps, trainable, ema, opt_state), metrics

    return step


def compile_step(
    step, state: TrainState, frozen, mesh: Mesh, spread: frozenset[str], per_call: int = 1
):
    """`jax.jit` of a step with explicit shardings and a donated state.

    `state` and `frozen` may be abstract. The entries of a batch named by `spread` are sharded over
    all devices; parameters and optimiser state follow `mesh.RULES`. per_call: steps of one call;
    with more than one, batches and metrics have a leading axis of this length.
    """
    same = meshes.replicated(mesh)
    state_sharding = meshes.tree_sharding(state, mesh)
    batch = {name: meshes.entry_sharding(name, spread, mesh) for name in ("images", "labels")}

    def one(state, frozen, batch, key):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # losses look at it
            return step(state, frozen, batch, key)

    def several(state, frozen, batches, key):
        return jax.lax.scan(lambda state, batch: one(state, frozen, batch, key), state, batches)

    return jax.jit(
        one if per_call == 1 else several,
        in_shardings=(
            state_sharding,
            meshes.tree_sharding(frozen, mesh),
            batch if per_call == 1 else {k: meshes.stacked(v) for k, v in batch.items()},
            same,
        ),
        out_shardings=(state_sharding, same),
        donate_argnums=0,
    )
