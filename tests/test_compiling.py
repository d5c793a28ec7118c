"""Compiled programs that a process keeps for the next run."""

import dataclasses
import gc
import weakref

import jax
import pytest
import tiny

from flcl import compiling, methods
from flcl.data.sequence.stream import TaskStream
from flcl.devices import mesh as meshes
from flcl.evaluate.features import Inference
from flcl.evaluate.judge import Judge
from flcl.evaluate.sampling import ClassSampler
from flcl.runs import memory
from flcl.settings import Sample
from flcl.training.step import phase_of

STREAM = TaskStream("cil", tuple(range(6)), (2, 2, 2), False, 6)


@pytest.fixture(autouse=True)
def _nothing_before():
    compiling.forget_programs()


def programs(method, mesh, index: int = 2) -> list:
    """The compiled functions of a method; none of them is traced here."""
    key = jax.random.key(0)
    shapes = jax.eval_shape(method.init, key)
    task = method.stream.tasks[index - 1]
    trainable, frozen = jax.eval_shape(lambda m, k: method.begin(m, task, k), shapes, key)
    phase = phase_of(method, index, trainable, frozen, mesh)
    found = [phase.step, phase.create, memory._initialiser(method, mesh)]
    if isinstance(method, methods.fmlora.FMLoRA):
        inference = Inference(method, mesh)
        return [*found, phase.losses, inference._features, inference._scores]
    judge = Judge(method.run.judge, 6, (8, 8, 1), method.run.seed)
    sampler = ClassSampler(method, method.run.sample, mesh)
    return [*found, sampler._compiled, judge._init, judge._step, judge._predict]


@pytest.mark.parametrize("name", ["funlora", "fmlora"])
def test_equal_settings_have_the_same_programs(name):
    mesh = meshes.make_mesh()

    def made(**changes):
        return methods.shared(tiny.run_of("six.npz", name, **changes), STREAM)

    first = programs(made(), mesh)
    assert all(a is b for a, b in zip(first, programs(made(), meshes.make_mesh()), strict=True))
    # Steps, shapes and samplers follow settings, tasks, phases and devices.
    other = "phase2__learning_rate" if name == "funlora" else "train__learning_rate"
    alone = meshes.make_mesh(devices=jax.devices()[:1])
    joint = dataclasses.replace(STREAM, joint=True)
    for different in (
        programs(made(**{other: 0.5}), mesh),
        programs(made(), mesh, index=1),
        programs(made(), alone),
        programs(methods.shared(tiny.run_of("six.npz", name), joint), mesh, index=1),
    ):
        assert different[0] is not first[0] and different[1] is not first[1]
    assert programs(made(), alone)[2] is not first[2]
    compiling.forget_programs()
    assert not any(a is b for a, b in zip(first, programs(made(), mesh), strict=True))


def test_other_samplers_and_judges_have_programs_of_their_own():
    method, mesh = methods.shared(tiny.run_of("six.npz", "funlora"), STREAM), meshes.make_mesh()
    samplers = [ClassSampler(method, Sample(num_steps=n), mesh)._compiled for n in (2, 3, 2)]
    assert samplers[0] is samplers[2] is not samplers[1]
    judge = method.run.judge
    wider = dataclasses.replace(judge, width=8)
    steps = [
        Judge(each, classes, shape, seed=seed)._step
        for each, classes, shape, seed in (
            (judge, 6, (8, 8, 1), 0),
            (judge, 6, (8, 8, 1), 1),  # no program depends on the seed
            (wider, 6, (8, 8, 1), 0),
            (judge, 7, (8, 8, 1), 0),
            (judge, 6, (8, 8, 3), 0),
        )
    ]
    assert steps[0] is steps[1] and len(set(map(id, steps))) == 4


def test_few_programs_are_kept():
    class Made:
        """Stands for a program."""

    @compiling.kept
    def make(number):
        return Made()

    most = compiling._PROGRAMS
    made = [weakref.ref(make(number)) for number in range(most + 12)]
    gc.collect()
    alive = [number for number, each in enumerate(made) if each() is not None]
    assert alive == list(range(12, most + 12))
    with compiling.other_programs():  # those from before are used again after it
        inside = weakref.ref(make(most + 11))
        assert inside() is not made[-1]()
    gc.collect()
    assert inside() is None and make(most + 11) is made[-1]()
    compiling.forget_programs()
    gc.collect()
    assert all(each() is None for each in made)
