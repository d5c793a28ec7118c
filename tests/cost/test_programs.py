"""The list of a run's programs, and the batches that they are lowered for."""

import gc

import jax
import numpy as np
import pytest
import tiny

from flcl import methods
from flcl.cost import programs
from flcl.data.base import placeholder
from flcl.data.sequence.stream import make_stream
from flcl.devices import mesh as meshes
from flcl.runs.setup import prepare


def method_of(run):
    return methods.build(run, make_stream(run.stream, placeholder(6)).exact())


def test_a_generator_has_its_steps_and_a_sampler():
    run = tiny.settings_of("nowhere", phase2__batch_size=32, phase2__groups=2)
    listed = programs.programs_of(method_of(run))
    assert [(program.name, program.batch_key) for program in listed] == [
        ("phase1", "phase1.batch_size"),
        ("phase2", "phase2.batch_size"),
        ("sampler", "sample.chunk"),
    ]
    assert [program.images(run) for program in listed] == [16, 32, 8]
    assert listed[1].groups == 2
    assert [program.trains for program in listed] == [True, True, False]
    straight = tiny.settings_of("nowhere", phase2__batch_size=32, straighten__steps=1)
    steps, pairs = programs.programs_of(method_of(straight))[2:4]
    assert (steps.name, steps.batch_key, steps.trains) == ("straighten", "phase2.batch_size", True)
    assert (pairs.name, pairs.images(straight), pairs.trains) == ("pairs", 32, False)
    larger = programs.with_batch(run, "phase2.batch_size", 64)
    assert listed[1].images(larger) == 64 and listed[0].images(larger) == 16


def test_the_programs_that_make_paths_straight_are_made_from_shapes(data):
    run = tiny.settings_of(data, straighten__steps=1)
    setup = prepare(run)[0]
    steps, pairs = programs.programs_of(setup.method)[2:4]
    # A batch of 8 pairs of two classes each, over four devices; a chunk of 16 pairs of one class.
    text = steps.lower(setup.method, setup.mesh, None).as_text()
    assert "tensor<8x2x2x8x8x1xf32>" in text
    assert "tensor<16x2x8x8x1xf32>" in pairs.lower(setup.method, setup.mesh, None).as_text()


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("fmlora", ["phase1", "phase2", "held_out", "features"]),
        ("class_mean", ["features"]),
        ("slca", ["phase1", "phase2", "align", "features"]),
        ("rsiat", ["phase1", "phase2", "align", "features"]),
        ("inflora", ["phase1", "phase2", "survey", "features"]),
        ("first_session", ["phase1", "features"]),
    ],
)
def test_a_classifier_has_the_steps_that_it_trains_and_features(method, names):
    listed = programs.programs_of(method_of(tiny.classifier_of("nowhere", method)))
    assert [program.name for program in listed] == names
    assert listed[-1] == programs.FEATURES


@pytest.mark.parametrize(
    ("method", "name", "changes"),
    [
        ("slca", "align", {}),
        ("inflora", "survey", {}),
        ("fmlora", "survey", {"lora__coverage": True}),
        ("fmlora", "survey", {"rank__selector": "energy:0.9"}),
        ("fmlora", "held_out", {"rank__selector": "holdout:0.01"}),
        ("frozen", "lower", {"model__keep_lower": True}),
    ],
)
def test_the_other_programs_of_a_classifier_are_made_from_shapes(data, method, name, changes):
    setup = prepare(tiny.classifier_of(data, method, **changes))[0]
    program = next(p for p in programs.programs_of(setup.method) if p.name == name)
    gc.collect()  # arrays of earlier tests
    before = len(jax.live_arrays())
    text = program.lower(setup.method, setup.mesh, None).as_text()
    assert program.images(setup.run) == 16 and not program.trains
    # The four devices divide the images; features are drawn the same on all.
    assert ("tensor<16x8x8x3xui8>" in text) == (name != "align")
    assert len(jax.live_arrays()) == before


def test_the_programs_above_kept_outputs_read_no_images():
    changes = {"model__keep_lower": True, "lora__blocks": "1", "train__min_crop": 1.0}
    method = method_of(tiny.classifier_of("nowhere", "lora_sequential", **changes))
    *above, lower, features = programs.programs_of(method)
    assert [each.name for each in above] == ["phase1", "phase2"] and lower.name == "lower"
    for program in (above[0], features):
        text = program.lower(method, meshes.make_mesh(), None).as_text()
        assert "tensor<16x5x64xf32>" in text and "ui8" not in text


@pytest.mark.parametrize(("strategy", "reason"), [("map", programs.TURNS), ("loop", None)])
def test_a_step_that_takes_turns_is_not_counted(strategy, reason):
    run = tiny.settings_of(
        "nowhere", phase1__groups=2, phase2__groups=2, adapter__strategy=strategy
    )
    step = programs.train_step(method_of(run), 2)
    assert step.uncounted == reason


@pytest.mark.parametrize("method", ["funlora", "fmlora"])
@pytest.mark.parametrize("phase", [1, 2])
def test_the_abstract_batch_is_that_of_the_loader(data, method, phase):
    changes = {} if method == "fmlora" else {"phase1__groups": 2, "phase2__groups": 1}
    setup = prepare(tiny.run_of(data, method, **changes))[0]
    task = setup.data.stream.tasks[phase - 1]
    batch = setup.method.batches(task, setup.data.train(task), (0, 1))[0]
    shapes = {name: (np.shape(value), np.asarray(value).dtype) for name, value in batch.items()}
    abstract = setup.method.abstract_batch(phase)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in abstract.items()} == shapes


def test_a_sampler_that_is_only_looked_at_is_written_for_its_platform():
    """For a TPU, with a TPU's cosines, on a mesh of CPUs: from shapes, without a TPU."""
    method = method_of(tiny.settings_of("nowhere"))
    gc.collect()  # arrays of earlier tests
    before = len(jax.live_arrays())
    program = programs.programs_of(method)[-1]
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    here, cpu, tpu = (program.lower(method, mesh, name).as_text() for name in (None, "cpu", "tpu"))
    assert here == cpu and "stablehlo.round_" in cpu
    assert tpu.count("stablehlo.cosine") > cpu.count("stablehlo.cosine")
    assert len(jax.live_arrays()) == before
