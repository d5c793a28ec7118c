"""Train steps and sampling of FunLoRA against the U-Net without classes."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from flcl import compiling, settings
from flcl.adapters import functional
from flcl.adapters.modulate import STRATEGIES, resolved_strategy
from flcl.bench.figures import Figure, timed
from flcl.bench.programs import (
    Training,
    Unmodulated,
    dtype_of,
    method_of,
    one_device,
    random_memory,
    rates,
)
from flcl.bench.rounds import interleave
from flcl.bench.sizes import Size
from flcl.cost import meter
from flcl.evaluate.sampling import ClassSampler
from flcl.flow import sampler as flow_sampler
from flcl.models.unet import UNet
from flcl.rng import stream_key

LABEL = 0


def phase1_step(size: Size, rounds: int) -> Iterator[Figure]:
    """Train step of the first task against that of the same U-Net without modulation."""
    run = size.generator_run(model__dtype=dtype_of(size))
    trainings = {"plain": Training(run, 1, Unmodulated)}
    # Computing one class at a time concerns the whole network, so it is compared here.
    strategies = {"": "auto"} | ({} if resolved_strategy("auto") == "map" else {"/map": "map"})
    for groups in size.step_groups:
        for suffix, strategy in strategies.items():
            modulated = size.generator_run(
                model__dtype=dtype_of(size), phase1__groups=groups, adapter__strategy=strategy
            )
            trainings[f"phase1_step/G={groups}{suffix}"] = Training(modulated, 1)
    seconds = interleave(trainings, rounds)
    for name, training in list(trainings.items())[1:]:
        more = training.rates(seconds[name])
        more["memory_ratio"] = training.bytes / trainings["plain"].bytes
        yield timed(name, seconds[name], seconds["plain"], **more)


def step_strategies(size: Size, rounds: int) -> Iterator[Figure]:
    """Train step of the first task by each strategy of the modulated convolution, against none."""
    plain = Training(size.generator_run(model__dtype=dtype_of(size)), 1, Unmodulated)
    chosen = resolved_strategy("auto")
    for groups in size.step_groups:
        for strategy in STRATEGIES[1:]:  # without `auto`, which is one of the others
            run = size.generator_run(
                model__dtype=dtype_of(size), phase1__groups=groups, adapter__strategy=strategy
            )
            # One after the other, so a figure is there before the next program is compiled.
            training = Training(run, 1)
            seconds = interleave({"this": training, "plain": plain}, rounds)
            more = training.rates(seconds["this"]) | {"memory_ratio": training.bytes / plain.bytes}
            note = "the default of this platform" if strategy == chosen else ""
            name = f"step_strategies/G={groups}/{strategy}"
            yield timed(name, seconds["this"], seconds["plain"], note=note, **more)


def phase2_step(size: Size, rounds: int) -> Iterator[Figure]:
    """Train step of a later task with an adapted window, against phase 1 and no modulation."""
    groups = size.step_groups[0]
    dtype = dtype_of(size)
    run = size.generator_run(model__dtype=dtype, phase1__groups=groups, phase2__groups=groups)
    window = size.generator_run(
        model__dtype=dtype, phase2__groups=groups, adapter__layers=size.window
    )
    plain, first = Training(run, 1, Unmodulated), Training(run, 1)
    later = Training(window, 2)
    seconds = interleave({"plain": plain, "first": first, "later": later}, rounds)
    names = {"first": "phase2_step", "plain": "phase2_step_unmodulated"}
    for reference, training in (("first", first), ("plain", plain)):
        more = later.rates(seconds["later"]) | {"memory_ratio": later.bytes / training.bytes}
        what = "the phase-1 step" if reference == "first" else "the unmodulated step"
        more["note"] = f"convolutions {size.window}, G = {groups}, against {what}"
        yield timed(names[reference], seconds["later"], seconds[reference], **more)


def sampler(size: Size, rounds: int) -> Iterator[Figure]:
    """Sampling of a class with merged kernels, against as many calls of the bare U-Net."""
    sampling = Sampling(size.generator_run(model__dtype=dtype_of(size)))
    seconds = interleave({"sampler": sampling, "bare": sampling.bare}, rounds)
    yield timed(
        "sampler",
        seconds["sampler"],
        seconds["bare"],
        **rates(sampling.images, sampling.flops, seconds["sampler"]),
        function_evaluations=sampling.evaluations,
        note=f"Euler, {sampling.images} images of one class",
    )


class Sampling:
    """Samples a chunk of images of one class in each call.

    Attributes:
      images: images per call.
      evaluations: calls of the U-Net for each image.
      flops: FLOPs per call.
    """

    def __init__(self, run: settings.FunLoRARun):
        self.images, self.evaluations = run.sample.chunk, run.sample.num_steps
        method = method_of(run)
        data = run.data
        shape = (data.image_size, data.image_size, data.channels)
        self._key = stream_key(0, "sample")
        self._memory = random_memory(method)
        self._sampler = ClassSampler(method, run.sample, one_device())
        factors = jax.tree.map(lambda v: v[LABEL], self._memory["bank"])
        merge = jax.jit(functional.merge, static_argnums=2, compiler_options=compiling.run_once())
        merged = merge(self._memory["trunk"], factors, run.adapter.family)
        noise = flow_sampler.noise_of(self._key, LABEL, jnp.arange(self.images), shape)
        network = UNet(run.model, data.channels, 0.0, run.adapter.strategy)
        lowered = jax.jit(lambda p, x, t: network.apply({"params": p}, x, t)).lower(
            merged, noise, jnp.zeros(self.images)
        )
        flops = meter.written_flops(lowered)
        self.flops = flops * self.evaluations if flops else None
        bare = jax.jit(lambda p, x: _euler(network, p, x, self.evaluations))
        compiled = bare.lower(merged, noise).compile()
        self.bare = lambda: compiled(merged, noise)

    def __call__(self):
        """Images uint8 [1, images, H, W, C]."""
        return self._sampler(self._memory, self._key, [LABEL], self.images)[0]


def _euler(network: UNet, params, noise: jax.Array, steps: int) -> jax.Array:
    """Sampling without classes, merged kernels and solver: float [B, H, W, C]."""
    times = jnp.linspace(0.0, 1.0, steps + 1)

    def step(x, pair):
        t, following = pair
        velocity = network.apply({"params": params}, x, jnp.broadcast_to(t, x.shape[:1]))
        return x + (following - t) * velocity, None

    return jax.lax.scan(step, noise, (times[:-1], times[1:]))[0]
