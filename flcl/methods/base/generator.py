"""What a continual generator declares beside the contract of every method."""

import abc

import grain
import jax
import optax

from flcl import settings
from flcl.data import loader
from flcl.data.sequence.stream import Task
from flcl.methods import optimisation
from flcl.methods.base.method import Memory, Method, Tree, Velocity, batch_of

STRAIGHTENING = 3
"""The phase of a stage after the training of a task: see `Generator.straightening`."""


class Generator(Method):
    """A continual method that generates images of every class it has learned.

    A batch is `{"images": uint8 [n, G, H, W, C], "labels": int32 [G]}`. `describe` gives
    `trunk_parameters`, `parameters_per_class`, `adapted_convolutions` (for each its index, name,
    shape and parameters per class) and `bytes_per_task`.

    Attributes:
      old_classes_fixed: whether a learned class never changes again; then its samples are
        generated only once.
      classifies: whether the method has a classifier of its own: see `logits`.
    """

    old_classes_fixed = False
    classifies = False
    run: settings.GeneratorRun

    def phase_settings(self, phase: int) -> settings.Phase:
        """Training settings of a phase."""
        return self.run.phase1 if phase == 1 else self.run.phase2

    def steps(self, task: Task, images: int) -> int:
        del images
        return self.phase_settings(self.phase(task)).steps

    def ema_decay(self, phase: int) -> float:
        return self.phase_settings(phase).ema_decay

    def optimizer(self, phase: int) -> optax.GradientTransformation:
        return optimisation.adam(self.phase_settings(phase))

    def abstract_batch(self, phase: int) -> dict[str, jax.ShapeDtypeStruct]:
        # [n, G]: n is first because it is the axis that is divided over the devices
        # (`adapters.modulate`).
        size, groups = self.phase_settings(phase).batch_size, self.phase_settings(phase).groups
        return batch_of(self.run.data, (size // groups, groups), (groups,))

    def batches(self, task, images, shard) -> grain.MapDataset:
        phase = self.phase_settings(self.phase(task))
        return loader.class_groups(
            images,
            groups=phase.groups,
            per_group=phase.batch_size // phase.groups,
            seed=self.run.seed,
            task=task.index,
            shard=shard,
        )

    def remedy(self, phase: int) -> str:
        return f"lower phase{phase}.learning_rate or raise phase{phase}.warmup_steps"

    @abc.abstractmethod
    def class_parameters(self, memory: Memory, label: jax.Array) -> Tree:
        """All that is needed to sample one class.

        Its shapes do not depend on the number of classes. So a sampler that gets this tree is
        compiled once, and a new class compiles nothing.
        """

    @abc.abstractmethod
    def velocity(self, class_parameters: Tree) -> Velocity:
        """The velocity field of the class with these parameters; traced."""

    def sampled(self, class_parameters: Tree, sample: settings.Sample) -> Velocity:
        """The velocity field that is solved: that of the class, unless `sample` changes it."""
        del sample
        return self.velocity(class_parameters)

    def straightening(self, memory: Memory, task: Task) -> tuple[Tree, Tree]:
        """`(trainable, frozen)` of the stage that makes the paths of a trained task straight.

        Its batches have pairs of noise and images, float32 [n, G, 2, H, W, C], in the place of
        images. Only if the method `straightens`.
        """
        raise NotImplementedError(f"{self.name} has no paths to straighten")

    def logits(self, memory: Memory, images: jax.Array) -> jax.Array:
        """Scores [B, capacity] of images uint8 [B, H, W, C] by the classifier of the method.

        A class that is not learned yet has the score -inf. Only if the method `classifies`.
        """
        raise NotImplementedError(f"{self.name} has no classifier")

    def trunk_and_factors(self, memory: Memory, label: int) -> tuple[Tree, Tree]:
        """The trunk, and the factors of one class: `{adapted convolution: {factor: [n]}}`.

        Raises `ValueError` for a method whose classes share all parameters.
        """
        del memory, label
        raise self.shared_by_all()

    def with_factors(self, memory: Memory, label: int, factors: Tree) -> Memory:
        """The memory with other factors of one class: the inverse of `trunk_and_factors`."""
        del memory, label, factors
        raise self.shared_by_all()
