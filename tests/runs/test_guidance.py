"""Classifier-free guidance of a finished FunLoRA run against a naive loop of the solver."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

import flcl
from flcl.adapters import functional
from flcl.evaluate.generators import _sampler_keys
from flcl.flow.sampler import noise_of
from flcl.ops.pixels import to_uint8
from flcl.runs.outside import exporting

SCALE, SEED = 80.0, 2  # the factors of a tiny run change its field little


@pytest.fixture(scope="module")
def run(finished):
    return flcl.open_run(finished)


@pytest.fixture(scope="module")
def guided(run):
    return run.sample(["dog", "fox"], 8, guidance=SCALE, seed=SEED)


def test_samples_are_those_of_a_naive_loop(run, guided):
    """Two Euler steps of v0 + g (v - v0), where v0 has the kernels of the trunk alone."""
    method, sample = run._setup.method, run.settings.sample
    trunk, factors = method.trunk_and_factors(run._memory(3), 3)
    merged = functional.merge(trunk, factors, run.settings.adapter.family)
    field = jax.jit(lambda kernels, x, t: method._model(0.0).apply({"params": kernels}, x, t))
    x = np.asarray(noise_of(run.key(SEED), 3, np.arange(8), (8, 8, 1)))
    assert (sample.solver, sample.num_steps) == ("euler", 2)
    for t in (0.0, 0.5):
        free, own = (field(kernels, x, np.full(8, t, np.float32)) for kernels in (trunk, merged))
        x = x + np.asarray((1 - SCALE) * free + SCALE * own) / 2
    difference = np.abs(np.asarray(to_uint8(x), int) - guided.images[0])
    assert difference.max() <= 1
    plain = run.sample(["dog"], 8, seed=SEED)
    assert np.abs(plain.images[0].astype(int) - guided.images[0]).max() > 10
    # Two networks for each evaluation.
    assert (plain.function_evaluations, guided.function_evaluations) == (2, 4)


def test_off_is_the_same_program(run):
    assert run._asked(guidance=1.0) == run.settings.sample
    assert run._setup.run.sample.guidance == 1.0
    assert "guidance" not in _sampler_keys(run.settings.sample)
    assert _sampler_keys(run._asked(guidance=2.0))["guidance"] == 2.0


def test_pure_and_exported_functions_are_guided_alike(run, guided):
    parameters, sample = run.functional(guidance=SCALE)
    pure = jax.jit(sample)(parameters, run.key(SEED), np.array([3, 5, 3]))
    expected = guided.images[[0, 1, 0], [0, 0, 1]].astype(int)
    assert np.abs(np.asarray(to_uint8(pure), int) - expected).max() <= 1
    asked = run._asked(guidance=SCALE)
    program = exporting.sampling(run._setup.method, asked, parameters, False)
    images = jax.jit(program.function)(parameters, SEED, 5, np.arange(8, dtype=np.int32))
    assert np.abs(np.asarray(images, int) - guided.images[1]).max() <= 1


def test_only_funlora_has_a_field_without_a_class(data):
    for method in ("finetune", "generative_replay", "ddgr"):
        message = f"'sample.guidance' is read by no part of method '{method}'.* to method 'funlora'"
        with pytest.raises(ValueError, match=message):
            tiny.settings_of(data, method, sample__guidance=2.0)
    run = tiny.settings_of(data, sample__guidance=2.0)
    assert dataclasses.replace(run.sample, guidance=1.0) == tiny.settings_of(data).sample
