"""Train steps on one device that are built from settings and can be called many times."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from flcl import methods, settings
from flcl.bench.sizes import Size
from flcl.cost import chips, meter
from flcl.cost.programs import train_step
from flcl.data.base import placeholder
from flcl.data.sequence.stream import TaskStream, make_stream
from flcl.devices import mesh as meshes
from flcl.devices import sharding
from flcl.methods.base import Method
from flcl.methods.funlora import FunLoRA
from flcl.rng import stream_key
from flcl.training.step import Phase

CLASSES = 10
STEPS = 1_000


class Unmodulated(FunLoRA):
    """The same U-Net, loss, optimiser and averaging, but no convolution is adapted."""

    def __init__(self, run: settings.FunLoRARun, stream: TaskStream):
        super().__init__(run, stream)
        self.adapted, self.layers = (), {}


class Training:
    """A compiled train step on one constant batch; each call is one step.

    mesh: the devices; None = one device.

    Attributes:
      method: the method of the run.
      images: of a batch.
      flops: of a step, of the program as it is written; None where they cannot be counted.
      bytes: device memory of the compiled step: arguments, temporaries and results.
    """

    def __init__(
        self, run: settings.Run, phase: int, build=methods.build, mesh: Mesh | None = None
    ):
        self.mesh = mesh or one_device()
        self.method = method_of(run, build)
        task = self.method.stream.tasks[phase - 1]
        key = stream_key(0, "benchmark")
        trainable, frozen = self.method.begin(random_memory(self.method), task, key)
        host = random_batch(self.method, phase, task.labels)
        self.images = int(np.prod(host["images"].shape[:-3]))
        self._batch = sharding.place_batch(host, self.mesh, self.method.spread)
        self._frozen = sharding.place(frozen, self.mesh, self.method.divides)
        create = Phase(self.method, phase, trainable, frozen, self.mesh).create
        self._state, self._key = create(trainable, STEPS), key
        program = train_step(self.method, phase)
        lowered = program.lower(self.method, self.mesh, None)
        self.flops = None if program.uncounted else meter.written_flops(lowered)
        self._step = lowered.compile()
        self.bytes = meter.device_bytes(self._step)

    def __call__(self):
        self._state, metrics = self._step(self._state, self._frozen, self._batch, self._key)
        return self._state, metrics

    @property
    def text(self) -> str:
        """The compiled program."""
        return self._step.as_text()

    def rates(self, seconds: list[float]) -> dict:
        """`steps_per_second`, `images_per_second` and `mfu` of the rounds, for a figure."""
        steps = {"steps_per_second": 1.0 / float(np.median(seconds))}
        return rates(self.images, self.flops, seconds) | steps


def method_of(run: settings.Run, build=methods.build) -> Method:
    """The method of a run on classes without images."""
    return build(run, make_stream(run.stream, placeholder(CLASSES)))


def one_device():
    """A mesh of one device, because every ratio is for a single device."""
    return meshes.make_mesh(devices=jax.devices()[:1])


def dtype_of(size: Size) -> str:
    """Type of the activations on the current devices."""
    return "bfloat16" if size.bfloat16 and jax.default_backend() != "cpu" else "float32"


def random_memory(method: Method):
    """A memory with the shapes of the method and no zeros, made without compilation."""
    generator = np.random.default_rng(0)

    def fill(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.ones(leaf.shape, leaf.dtype)
        values = generator.standard_normal(leaf.shape, np.float32)
        return jnp.asarray(values / max(1, math.prod(leaf.shape[:-1])) ** 0.5, leaf.dtype)

    return jax.tree.map(fill, jax.eval_shape(method.init, jax.random.key(0)))


def random_batch(method: Method, phase: int, labels: tuple[int, ...]) -> dict:
    """A host batch of random bytes in the form of the loader of a run."""
    generator, batch = np.random.default_rng(0), method.abstract_batch(phase)
    return {
        "images": generator.integers(0, 256, batch["images"].shape, np.uint8),
        "labels": np.resize(np.asarray(labels, np.int32), batch["labels"].shape),
    }


def rates(images: int, flops: float | None, seconds: list[float]) -> dict:
    """`images_per_second` and `mfu` for a figure, from the median of the rounds."""
    median, peak = float(np.median(seconds)), peak_flops(jax.devices()[0])
    mfu = flops / median / peak if flops and peak else None
    return {"images_per_second": images / median, "mfu": mfu}


def peak_flops(device) -> float | None:
    """Peak dense bfloat16 operations per second; None if unknown."""
    chip = chips.chip_of(device.device_kind)
    return chip and chip.peak
