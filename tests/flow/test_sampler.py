"""Solvers on ODEs with known solutions, their cost in evaluations, and what an image depends on."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl import settings
from flcl.flow.sampler import arrived, make_sampler, most_evaluations, noise_of, solve

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2}
NOISE = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 1)), jnp.float32)


def sample(solver, steps=8, **changes):
    return settings.Sample(solver=solver, num_steps=steps, **changes)


def growth(x, t):
    """dx/dt = x cos(t): x(1) = x0 exp(sin 1)."""
    return x * jnp.cos(t)[:, None, None, None]


@pytest.mark.parametrize("solver", ORDERS)
def test_order_of_convergence(solver):
    exact = NOISE * math.exp(math.sin(1.0))
    errors = [
        float(jnp.abs(solve(growth, NOISE, sample(solver, n))[0] - exact).max()) for n in (8, 16)
    ]
    assert abs(math.log2(errors[0] / errors[1]) - ORDERS[solver]) < 0.35


def test_dopri5_meets_its_tolerance():
    got, _ = solve(growth, NOISE, sample("dopri5", rtol=1e-6, atol=1e-6))
    np.testing.assert_allclose(got, NOISE * math.exp(math.sin(1.0)), rtol=1e-5)


@pytest.mark.parametrize("solver", [*ORDERS, "dopri5"])
def test_function_evaluations_are_counted_exactly(solver):
    """The field notes every call of the first image; the report has to agree."""
    calls = []

    def field(x, t):
        jax.debug.callback(lambda t: calls.append(float(t)), t[0])
        return growth(x, t)

    _, reported = jax.jit(lambda x: solve(field, x, sample(solver)))(NOISE[:1])
    jax.effects_barrier()
    assert int(reported) == len(calls)
    assert solver == "dopri5" or int(reported) == 8 * ORDERS[solver]


@pytest.mark.parametrize("solver", [*ORDERS, "dopri5"])
def test_nothing_calls_back_to_the_host(solver):
    """JAX would not keep such a program in its compile cache."""
    lowered = jax.jit(lambda x: solve(growth, x, sample(solver))[0]).lower(NOISE)
    assert "callback" not in lowered.as_text()


def test_more_steps_mean_more_evaluations():
    counts = [int(solve(growth, NOISE, sample("heun", n))[1]) for n in (3, 10)]
    assert counts == [6, 20]


def test_euler_on_the_exact_field_of_one_point_hits_the_point():
    z = jnp.linspace(-1, 1, 4).reshape(1, 2, 2, 1)

    def exact(x, t):
        return (z - x) / (1 - t)[:, None, None, None]

    got, _ = solve(exact, NOISE, sample("euler", 5))
    np.testing.assert_allclose(got, jnp.broadcast_to(z, NOISE.shape), atol=1e-5)


def stiff_for_some(x, t):
    """Images with a large first pixel need many more adaptive steps than others."""
    speed = 1 + 50 * jax.nn.relu(x[:, :1, :1])
    return jnp.sin(speed * t[:, None, None, None]) * x


@pytest.mark.parametrize("solver", ["heun", "dopri5"])
def test_an_image_does_not_depend_on_its_neighbours(solver):
    together, _ = solve(stiff_for_some, NOISE, sample(solver))
    for i in range(len(NOISE)):
        alone, _ = solve(stiff_for_some, NOISE[i : i + 1], sample(solver))
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-5, atol=1e-6)


def test_noise_is_a_function_of_key_class_and_index():
    key = jax.random.key(0)
    many = noise_of(key, 3, jnp.arange(6), (2, 2, 1))
    few = noise_of(key, 3, jnp.asarray([4, 1]), (2, 2, 1))
    np.testing.assert_array_equal(many[jnp.asarray([4, 1])], few)
    assert not np.array_equal(many[0], noise_of(key, 4, jnp.arange(1), (2, 2, 1))[0])
    values = noise_of(key, 0, jnp.arange(4096), (2, 2, 1))
    assert abs(float(values.mean())) < 0.02 and abs(float(values.std()) - 1) < 0.02


def test_one_program_builds_the_kernels_of_any_class_once():
    built = []

    def velocity_of(shift):
        built.append(1)
        return lambda x, t: jnp.broadcast_to(shift, x.shape) - 0 * x

    function = jax.jit(make_sampler(velocity_of, (2, 2, 1), sample("euler", 2)))
    key = jax.random.key(0)
    for label, shift in ((2, -0.5), (0, 0.0), (7, 0.5)):
        images, calls = function(jnp.float32(shift), key, label, jnp.asarray([4, 0, 1]))
        assert images.shape == (3, 2, 2, 1) and images.dtype == jnp.uint8 and int(calls) == 2
        start = noise_of(key, label, jnp.asarray([4, 0, 1]), (2, 2, 1))
        want = np.round((np.clip(start + shift, -1, 1) + 1) * 127.5)
        np.testing.assert_allclose(images, want, atol=1)
    assert len(built) == 1


GRIDS = {
    "uniform": lambda u: u,
    "cosine": lambda u: (1 - math.cos(math.pi * u)) / 2,
    "power:0.5": lambda u: math.sqrt(u),
    "power:2": lambda u: u * u,
}


@pytest.mark.parametrize("grid", GRIDS)
def test_euler_adds_the_field_at_the_times_of_the_grid(grid):
    """dx/dt = t: one Euler step from t to s adds t (s - t), so the sum tells the times."""
    times = [GRIDS[grid](i / 5) for i in range(6)]
    added = sum(t * (s - t) for t, s in itertools.pairwise(times))
    got, calls = solve(
        lambda x, t: jnp.broadcast_to(t[:, None, None, None], x.shape),
        NOISE,
        sample("euler", 5, grid=grid),
    )
    np.testing.assert_allclose(got, NOISE + added, atol=1e-6)
    assert int(calls) == 5


def test_a_grid_converges_to_the_same_end():
    exact = NOISE * math.exp(math.sin(1.0))
    for grid in ("cosine", "power:2"):
        got, _ = solve(growth, NOISE, sample("midpoint", 64, grid=grid))
        np.testing.assert_allclose(got, exact, rtol=2e-4)


def test_only_dopri5_can_fail_to_arrive():
    assert arrived(10**6, sample("heun", 500_000))
    assert arrived(most_evaluations(), sample("dopri5"))
    assert not arrived(most_evaluations() + 1, sample("dopri5"))
