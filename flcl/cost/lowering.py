"""A run's programs from shapes alone, for whatever devices a mesh has: nothing is allocated."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Lowered

from flcl import settings
from flcl.devices import sharding
from flcl.evaluate.features import Inference
from flcl.evaluate.sampling import ClassSampler
from flcl.methods.base import Classifier, Generator, Method
from flcl.train.step import Phase


def phases(method: Method) -> list[int]:
    """The phases in which a method trains: none, the first task's, or also that of later tasks."""
    tasks = method.stream.tasks
    return [phase for phase in (1, 2) if phase <= len(tasks) and method.steps(tasks[phase - 1], 1)]


def without_files(run: settings.Run) -> settings.Run:
    """`run` as if its weights file had been read: what it decides changes no shape."""
    if not isinstance(run, settings.ClassifierRun) or run.model.normalize != "weights":
        return run
    return dataclasses.replace(run, model=dataclasses.replace(run.model, normalize="half"))


def abstract_memory(method: Method):
    """Shapes and types of what a method has learned."""
    return jax.eval_shape(method.init, _key())


def lower_step(method: Method, phase: int, mesh: Mesh, platform: str | None = None) -> Lowered:
    """The train step of a phase with the global batch of the run, for the devices of a mesh.

    platform: what the program is written for, such as `tpu`, where it is only looked at; None: the
      platform of the mesh.
    """
    task, key = method.stream.tasks[phase - 1], _key()
    trainable, frozen = jax.eval_shape(
        lambda memory, key: method.begin(memory, task, key), abstract_memory(method), key
    )
    programs = Phase(method, phase, trainable, frozen, mesh)
    state = jax.eval_shape(programs.create, trainable, 1)
    traced = programs.step.trace(state, frozen, _batch(method, phase), key)
    return traced.lower(lowering_platforms=None if platform is None else (platform,))


def lower_sampler(method: Generator, mesh: Mesh) -> Lowered:
    """The program that draws one chunk of images of one class: see `ClassSampler.lower`."""
    memory = sharding.abstract(abstract_memory(method), mesh, method.divides)
    return ClassSampler(method, method.run.sample, mesh).lower(memory, _key())


def lower_features(method: Classifier, mesh: Mesh) -> Lowered:
    """The program that turns a batch of `train.eval_batch_size` images into features."""
    memory = sharding.abstract(abstract_memory(method), mesh, method.divides)
    return Inference(method, mesh).lower(memory)


def _key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def _batch(method: Method, phase: int) -> dict:
    data = method.run.data
    image = (data.image_size, data.image_size, data.channels)
    if isinstance(method, Generator):
        own = method.phase_settings(phase)
        images, labels = (own.batch_size // own.groups, own.groups, *image), (own.groups,)
    else:
        images, labels = (method.run.train.batch_size, *image), (method.run.train.batch_size,)
    return {
        "images": jax.ShapeDtypeStruct(images, jnp.uint8),
        "labels": jax.ShapeDtypeStruct(labels, jnp.int32),
    }
