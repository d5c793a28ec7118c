"""From noise to images: the ODE dx/dt = v(x, t), solved by diffrax in one compiled call."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from flcl import settings
from flcl.ops.pixels import to_uint8
from flcl.settings.generator import grids

Velocity = Callable[[jax.Array, jax.Array], jax.Array]

CALLS_OF_STEP = {"euler": 1, "midpoint": 2, "heun": 2}
"""Solver with fixed steps -> calls of the network per step. Their total is printed beside every
accuracy (F9)."""
SOLVERS = (*CALLS_OF_STEP, "dopri5")
"""The solvers that `sample.solver` accepts."""

# dopri5 has seven stages, but the last stage is also the first of the next step. So it makes six
# calls per step, and one call before the first step.
_DOPRI5_CALLS, _DOPRI5_START = 6, 1
DOPRI5_MAX_STEPS = 4096


def most_evaluations() -> int:
    """Function evaluations of a dopri5 solve with the largest allowed number of steps."""
    return _DOPRI5_START + _DOPRI5_CALLS * DOPRI5_MAX_STEPS


def networks(sample: settings.Sample) -> int:
    """Networks that one evaluation of the field calls: two under classifier-free guidance."""
    guided = isinstance(sample, settings.GuidedSample) and sample.guidance != 1.0
    return 2 if guided else 1


def evaluations(sample: settings.Sample) -> int | None:
    """Function evaluations of an image by fixed steps; None for dopri5, which chooses its steps."""
    return None if sample.solver == "dopri5" else CALLS_OF_STEP[sample.solver] * sample.num_steps


def arrived(calls, sample: settings.Sample):
    """Whether the images of a solve with `calls` evaluations reached t = 1; traced or not."""
    return sample.solver != "dopri5" or calls <= most_evaluations()


def solve(velocity: Velocity, noise: jax.Array, sample: settings.Sample):
    """Images [B, H, W, C] at t = 1 and the number of function evaluations.

    Fixed-step solvers advance all images together over `sample.num_steps` steps, with the times of
    `sample.grid`. dopri5 controls the step of every image separately, so no image depends on the
    others. It reports the evaluations of the slowest image, which is how often the network ran. A
    number above `most_evaluations()` means that an image did not reach t = 1.

    Args:
      velocity: ([B, H, W, C], [B]) -> [B, H, W, C].
      noise: x0 [B, H, W, C].
    """
    chex.assert_rank(noise, 4)
    if sample.solver == "dopri5":
        images, steps = jax.vmap(lambda x: _adaptive(velocity, x, sample))(noise)
        return images, _DOPRI5_START + _DOPRI5_CALLS * steps.max()
    import diffrax  # late: importing it takes a second, and classifiers never sample

    def field(t, x, _):
        return velocity(x, jnp.broadcast_to(t, x.shape[:1]))

    # The step of the solver instead of `diffeqsolve`, which checks the times in a call to the host;
    # JAX does not store such a program in its compile cache.
    term, method = diffrax.ODETerm(field), getattr(diffrax, sample.solver.capitalize())()
    times = _times(sample)

    def advance(carry, span):
        x, state = carry
        x, _, _, state, _ = method.step(term, *span, x, None, state, made_jump=False)
        return (x, state), None

    start = (noise, method.init(term, times[0], times[1], noise, None))
    (images, _), _ = jax.lax.scan(advance, start, (times[:-1], times[1:]))
    return images, jnp.asarray(evaluations(sample))


def _times(sample: settings.Sample) -> jax.Array:
    """The times of the fixed steps from 0 to 1: [num_steps + 1], see `sample.grid`."""
    if sample.grid == "uniform":
        return jnp.linspace(0.0, 1.0, sample.num_steps + 1)
    # In float64, so that the steps near t = 1 are not the differences of rounded numbers.
    u = np.linspace(0.0, 1.0, sample.num_steps + 1)
    exponent = grids.power(sample.grid)
    times = (1 - np.cos(np.pi * u)) / 2 if exponent is None else u**exponent
    return jnp.asarray(times, jnp.float32)


def _adaptive(velocity: Velocity, noise: jax.Array, sample: settings.Sample):
    import diffrax

    def field(t, x, _):
        return velocity(x[None], jnp.reshape(t, (1,)))[0]

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Dopri5(),
        t0=0.0,
        t1=1.0,
        dt0=None,
        y0=noise,
        stepsize_controller=diffrax.PIDController(rtol=sample.rtol, atol=sample.atol),
        max_steps=DOPRI5_MAX_STEPS,
        throw=False,  # if one device raised, the others would wait for it
    )
    arrived = solution.result == diffrax.RESULTS.successful
    return solution.ys[0], jnp.where(arrived, solution.stats["num_steps"], DOPRI5_MAX_STEPS + 1)


def noise_of(key: jax.Array, label: jax.Array, indices: jax.Array, shape) -> jax.Array:
    """x0 [B, *shape] of the images `indices` [B]: a function of (key, label, index) only."""
    class_key = jax.random.fold_in(key, label)
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(class_key, i), shape))(indices)


def make_sampler(velocity_of, shape, sample: settings.Sample, constrain=lambda x: x):
    """The function that samples one chunk of images of one class; the caller compiles it.

    The class is an argument, so one program serves every class, and any number of them.

    Args:
      velocity_of: class parameters -> the velocity of that class. It is called outside the solve,
        so it builds kernels only once.
      shape: shape of one image, (H, W, C).
      constrain: places a batch [B, H, W, C] on the devices.

    Returns:
      (class parameters, key, label, indices [B]) -> uint8 [B, H, W, C] and the number of function
      evaluations per image. `label` is a number that only chooses the noise.
    """

    def sample_chunk(class_parameters, key, label, indices):
        velocity = jax.jit(velocity_of(class_parameters))  # solvers trace their field often
        noise = constrain(noise_of(key, label, indices, shape))
        images, calls = solve(velocity, noise, sample)
        # Placed again, so devices exchange bytes instead of floats.
        return constrain(to_uint8(images)), calls

    return sample_chunk
