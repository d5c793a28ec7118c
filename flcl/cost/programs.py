"""The programs of a run for the devices of any mesh, made from shapes; nothing is allocated.

This is the only list of programs; all code that counts, compiles or times a program uses it.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.stages import Lowered

from flcl import settings
from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.evaluate import lower as kept
from flcl.evaluate.features import Inference
from flcl.evaluate.sampling import ClassSampler
from flcl.methods.base import STRAIGHTENING, Classifier, Generator, Method
from flcl.training.step import Phase, aligned
from flcl.training.straighten import pair_chunk, pair_program
from flcl.training.survey import Survey

TURNS = "the step computes its classes in a loop, and XLA counts the work of only one turn"
"""The reason why the work of such a train step is unknown."""

ALL_STEPS = "its steps are one loop of unknown length, and XLA counts the work of one turn"
"""The reason why the work of an alignment is unknown."""


class Program(NamedTuple):
    """A program of a run.

    Attributes:
      name: `phase1`, `phase2`, `straighten`, `pairs`, `sampler`, `survey`, `held_out`, `align`,
        `lower` or `features`.
      batch_key: the setting that is its global batch.
      lower: (method, mesh, platform) -> the lowered program. platform: the target, such as `tpu`,
        if the program is only analysed; None = the platform of the mesh.
      groups: number of class groups in a batch.
      uncounted: why its FLOPs cannot be counted; None if XLA counts them.
    """

    name: str
    batch_key: str
    lower: Callable[[Method, Mesh, str | None], Lowered]
    groups: int = 1
    uncounted: str | None = None

    @property
    def trains(self) -> bool:
        """Whether it is a train step."""
        return self.name.startswith("phase") or self.name == "straighten"

    def images(self, run: settings.Run) -> int:
        """Images of its global batch."""
        section, name = self.batch_key.split(".")
        return getattr(getattr(run, section), name)


def programs_of(method: Method) -> list[Program]:
    """All programs of a run that grow with its network: train steps, sampler, features and more.

    A generator may also draw pairs (`pairs`) and learn the straight paths between their ends
    (`straighten`). A classifier may also collect sums over a task (`survey`), measure losses before
    it (`held_out`), train its head on drawn features (`align`) and keep outputs of blocks that
    never train (`lower`). The features serve the statistics of a task, too.
    """
    steps = [train_step(method, phase) for phase in phases(method)]
    if isinstance(method, Generator):
        if method.straightens:
            steps.append(train_step(method, STRAIGHTENING))
            steps.append(Program("pairs", "phase2.batch_size", _lower_pairs))
        return [*steps, Program("sampler", "sample.chunk", _lower_sampler)]
    assert isinstance(method, Classifier)
    tasks = method.stream.tasks
    if any(method.surveys(task) for task in tasks):
        steps.append(Program("survey", "train.batch_size", _lower_survey))
    if any(method.preliminary(task) for task in tasks):
        steps.append(Program("held_out", "train.eval_batch_size", _lower_held_out))
    if jax.eval_shape(method.align, abstract_memory(method), _key()):
        steps.append(Program("align", "align.batch_size", _lower_align, uncounted=ALL_STEPS))
    if method.kept_blocks:
        steps.append(Program("lower", "train.eval_batch_size", _lower_kept))
    return [*steps, FEATURES]


def phases(method: Method) -> list[int]:
    """The phases in which a method trains: (), the first, or both."""
    return sorted({method.phase(t) for t in method.stream.tasks if method.steps(t, 1)})


def train_step(method: Method, phase: int) -> Program:
    """The train step of a phase with the global batch of the run."""

    def lower(method: Method, mesh: Mesh, platform: str | None) -> Lowered:
        return lower_step(method, phase, mesh, platform)

    name, key, groups = f"phase{phase}", "train.batch_size", 1
    if isinstance(method, Generator):
        key, groups = f"{name}.batch_size", method.phase_settings(phase).groups
    if phase == STRAIGHTENING:  # its batches are those of phase 2
        name, key = "straighten", "phase2.batch_size"
    return Program(name, key, lower, groups, TURNS if method.takes_turns else None)


def lower_step(method: Method, phase: int, mesh: Mesh, platform: str | None = None) -> Lowered:
    """The lowered train step of a phase; for `platform` see `Program.lower`."""
    trainable, frozen = _begun(method, phase)
    compiled_phase = Phase(method, phase, trainable, frozen, mesh)
    state = jax.eval_shape(compiled_phase.create, trainable, 1)
    traced = compiled_phase.step.trace(state, frozen, method.abstract_batch(phase), _key())
    return traced.lower(lowering_platforms=platform and (platform,))


def _begun(method: Method, phase: int):
    """Shapes of `(trainable, frozen)` of the first task of a phase."""
    if phase == STRAIGHTENING:
        return jax.eval_shape(
            lambda memory: method.straightening(memory, method.stream.tasks[-1]),
            abstract_memory(method),
        )
    task = next(task for task in method.stream.tasks if method.phase(task) == phase)
    return jax.eval_shape(
        lambda memory, key: method.begin(memory, task, key), abstract_memory(method), _key()
    )


def _lower_sampler(method: Generator, mesh: Mesh, platform: str | None) -> Lowered:
    """The program that samples one chunk of images of one class."""
    memory = sharding.abstract(abstract_memory(method), mesh, method.divides)
    return ClassSampler(method, method.run.sample, mesh).lower(memory, _key(), platform)


def _lower_pairs(method: Generator, mesh: Mesh, platform: str | None) -> Lowered:
    """The program that draws a chunk of pairs of noise and images of one class."""
    same = sharding.replicated(mesh)
    label = jax.ShapeDtypeStruct((), np.int32, sharding=same)
    chunk = jax.ShapeDtypeStruct((pair_chunk(method, mesh),), np.int32, sharding=same)
    parameters = jax.eval_shape(method.class_parameters, abstract_memory(method), label)
    parameters = sharding.abstract(parameters, mesh, method.divides)
    traced = pair_program(method, mesh).trace(parameters, _key(), label, chunk)
    return traced.lower(lowering_platforms=platform and (platform,))


def _lower_features(method: Classifier, mesh: Mesh, platform: str | None) -> Lowered:
    """The program that computes the features of a batch of images."""
    memory = sharding.abstract(abstract_memory(method), mesh, method.divides)
    return Inference(method, mesh).lower(memory, platform)


def _lower_kept(method: Classifier, mesh: Mesh, platform: str | None) -> Lowered:
    """The program of the blocks whose outputs are kept, for a batch of images."""
    memory = sharding.abstract(abstract_memory(method), mesh, method.divides)
    return kept.lowered(method, mesh, memory, platform)


def _lower_survey(method: Classifier, mesh: Mesh, platform: str | None) -> Lowered:
    """The program that adds the sums of a batch to those of the batches before it."""
    memory = sharding.abstract(abstract_memory(method), mesh, method.divides)
    return Survey(method, mesh).lower(memory, platform)


def _lower_held_out(method: Classifier, mesh: Mesh, platform: str | None) -> Lowered:
    """The program that measures the losses of a batch before a task."""
    index = next(method.phase(task) for task in method.stream.tasks if method.preliminary(task))
    trainable, frozen = _begun(method, index)
    phase = Phase(method, index, trainable, frozen, mesh)
    trainable, frozen = (
        sharding.abstract(tree, mesh, method.divides) for tree in (trainable, frozen)
    )
    size = meshes.rounded_up(method.run.train.eval_batch_size, mesh)
    spread = sharding.over_devices(mesh)
    images, labels = (
        jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype, sharding=spread)
        for leaf in map(method.abstract_batch(index).get, ("images", "labels"))
    )
    traced = phase.losses.trace(trainable, frozen, images, labels)
    return traced.lower(lowering_platforms=platform and (platform,))


def _lower_align(method: Classifier, mesh: Mesh, platform: str | None) -> Lowered:
    """The program that trains the head on drawn features, all steps of a task."""
    memory = sharding.abstract(abstract_memory(method), mesh, method.divides)
    traced = aligned(method, mesh).trace(memory, _key())
    return traced.lower(lowering_platforms=platform and (platform,))


FEATURES = Program("features", "train.eval_batch_size", _lower_features)
"""The program of every classifier that computes the features of a batch of images."""


def abstract_memory(method: Method):
    """Shapes and types of the memory of a method."""
    return jax.eval_shape(method.init, _key())


def without_files(run: settings.Run) -> settings.Run:
    """`run` without its weights file, whose settings change no shape."""
    if not isinstance(run, settings.ClassifierRun) or run.model.normalize != "weights":
        return run
    return dataclasses.replace(run, model=dataclasses.replace(run.model, normalize="half"))


def with_batch(run: settings.Run, key: str, images: int) -> settings.Run:
    """`run` with another global batch, such as `phase1.batch_size`."""
    section, name = key.split(".")
    changed = dataclasses.replace(getattr(run, section), **{name: images})
    return dataclasses.replace(run, **{section: changed})


def _key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))
