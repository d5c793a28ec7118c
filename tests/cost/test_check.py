"""Programs compiled for TPUs that are not there. Continuous integration has their compiler."""

import gc
import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
import tiny
from rich.console import Console

from flcl import methods
from flcl.cost import check, meter, programs, targets
from flcl.cost.chips import CHIPS
from flcl.cost.show import print_precompiled
from flcl.data.base import placeholder
from flcl.data.sequence.stream import make_stream
from flcl.devices import mesh as meshes
from flcl.devices import sharding

needs_libtpu = [
    pytest.mark.aot,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="libtpu is not installed: the extra aot, which launch/test.sh brings",
    ),
]
SMALL = {"model__multipliers": (1,), "adapter__layers": "1-2", "model__dtype": "bfloat16"}


def aot(function):
    for mark in needs_libtpu:
        function = mark(function)
    return function


def check_tiny(run, topology="v5e:2x2", **options) -> dict:
    return check.check(run, make_stream(run.stream, placeholder(6)), topology, **options)


@pytest.fixture(scope="module")
def classifier() -> dict:
    """Figures of a tiny FM-LoRA's later tasks and of its features on four chips."""
    gc.collect()  # arrays of earlier tests
    before = len(jax.live_arrays())
    found = check_tiny(tiny.classifier_of("nowhere"), programs=("phase2", "features"))
    assert len(jax.live_arrays()) == before  # from shapes alone
    return found


@aot
def test_a_step_that_is_divided_fits_and_exchanges_its_gradients_once(classifier):
    assert classifier["problems"] == []
    step, features = classifier["programs"]
    assert (step["name"], features["name"]) == ("phase2", "features")
    assert 0.9 < step["replication"] < 1.3 and 0.9 < features["replication"] < 1.3
    assert step["uncounted"] is features["uncounted"] is None
    assert [(one["kind"], one["count"]) for one in step["collectives"]] == [("all-reduce", 1)]
    # The gradients of what trains, the head and the adapters, in float32; not those of the trunk.
    assert 1_000 < step["collectives"][0]["bytes"] < 0.05 * step["memory"]["arguments"]
    # Every device ends with the features of all images, 64 numbers of float32 each.
    assert features["collectives"] == [{"kind": "all-gather", "count": 1, "bytes": 16 * 64 * 4}]


@aot
def test_memory_is_that_of_one_device(classifier):
    assert classifier["usable_bytes"] == CHIPS["v5e"].usable
    for each in classifier["programs"]:
        memory = each["memory"]
        assert memory["arguments"] > 0 and memory["outputs"] > 0 and memory["code"] > 0
        assert memory["arguments"] < memory["peak"] < each["required_bytes"]
        assert each["fits"] and each["refused"] is None
        assert each["largest_batch"]["images"] % 4 == 0 < each["largest_batch"]["images"]
    step = classifier["programs"][0]["memory"]
    assert 0.9 * step["outputs"] < step["aliased"] <= step["outputs"]  # the state is donated


@aot
def test_what_was_found_can_be_printed_and_stored(classifier):
    assert json.loads(json.dumps(classifier)) == classifier
    console = Console(record=True, width=160)
    print_precompiled(classifier, console, projected=True)
    text = console.export_text()
    for part in ("v5e:2x2: 4 devices", "1 all-reduce", "largest global batch", "on paper", "4,096"):
        assert part in text


@aot
def test_a_generator_is_divided_and_gathers_finished_images_only():
    run = tiny.settings_of("nowhere", phase2__groups=2, phase2__batch_size=128, **SMALL)
    found = check_tiny(run, programs=("phase2", "sampler"))
    assert found["problems"] == []
    step, sampler = found["programs"]
    assert step["memory"]["peak"] > 0 and step["replication"] < meter.REPLICATED
    assert 0.8 < sampler["replication"] < 1.2
    # Finished images are gathered, and no activation is ever exchanged: those of a single layer
    # would be more than all that is.
    images = 8 * 8 * 8
    gathers = [one for one in sampler["collectives"] if one["kind"] == "all-gather"]
    assert [(one["count"], one["bytes"]) for one in gathers] == [(1, images)]
    assert sum(one["bytes"] for one in sampler["collectives"]) < 6 * images


@aot
def test_work_that_cannot_be_counted_is_not_judged():
    own = {"phase2__groups": 2, "phase2__batch_size": 64, "adapter__strategy": "map"}
    run = tiny.settings_of("nowhere", **own, **SMALL)
    found = check_tiny(run, programs=("phase2",))
    assert found["problems"] == []
    step = found["programs"][0]
    assert step["memory"]["peak"] > 0 and step["fits"]
    assert step["flops_per_device"] is step["replication"] is step["projection"] is None
    assert step["uncounted"] == programs.TURNS
    console = Console(record=True, width=160)
    print_precompiled(found, console)
    assert f"phase2: {programs.TURNS}" in console.export_text()


def test_the_strategy_is_that_of_the_target():
    run = tiny.settings_of("nowhere")
    assert check._as_on("tpu", run).adapter.strategy == "vmap"
    assert check._as_on("gpu", run).adapter.strategy == "loop"
    fixed = tiny.settings_of("nowhere", adapter__strategy="taps")
    assert check._as_on("tpu", fixed) == fixed


def _one(lower, images: int = 16) -> tuple:
    """A program, the method that it asks for its batch, four chips and their mesh."""
    run = tiny.classifier_of("nowhere", train__batch_size=images)
    method = methods.build(run, make_stream(run.stream, placeholder(6)).exact())
    target = targets.target_of("v5e:2x2")
    program = programs.Program("phase1", "train.batch_size", lower)
    return program, method, meshes.make_mesh(devices=target.devices), target


def _layout(merge_groups_first: bool):
    """A convolution of class groups [n, G, ...], n shared by the devices."""

    def lower(method, mesh, _platform):
        def gradient(kernel, x):
            def loss(kernel):
                images = x.swapaxes(0, 1) if merge_groups_first else x
                images = images.reshape(-1, *x.shape[2:])
                out = jax.lax.conv_general_dilated(
                    images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                return (jnp.tanh(out) ** 2).sum()

            return jax.grad(loss)(kernel)

        same, spread = sharding.replicated(mesh), sharding.over_devices(mesh)
        kernel = jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)
        images = jax.ShapeDtypeStruct((method.run.train.batch_size, 4, 16, 16, 64), jnp.float32)
        program = jax.jit(gradient, in_shardings=(same, spread), out_shardings=same)
        return program.lower(kernel, images)

    return lower


@aot
@pytest.mark.parametrize("bad", [False, True])
def test_a_layout_that_gathers_the_batch_is_caught(bad):
    program, method, mesh, target = _one(_layout(bad))
    found = meter.measure(program, method, mesh, target)
    found["largest_batch"] = None
    lines = check.problems(found, target.chip.usable)
    if bad:
        assert found["replication"] > 3  # four chips, each of which does everything
        assert len(lines) == 1 and "phase1 replicates work" in lines[0]
        assert f"{found['replication']:.2f}" in lines[0] and "1.5" in lines[0]
    else:
        assert 0.8 < found["replication"] < 1.2 and lines == []


@aot
def test_a_batch_beyond_the_memory_ends_with_exit_code_1(launch):
    words = ["--config=configs/fmlora_digits.py:smoke", "--topology=v5e:2x2", "--programs=features"]
    done = launch("precompile", *words, "--config.train.eval_batch_size=1000000", "--json", code=1)
    found = json.loads(done.stdout)
    (features,) = found["programs"]
    assert features["fits"] is False and features["memory"] is None
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"error: {found['problems'][0]}"
    assert "features does not fit: Ran out of memory on HBM" in last
    suggested = features["largest_batch"]["images"]
    assert f"try --config.train.eval_batch_size={suggested}" in last
    assert 0 < suggested < 1_000_000


def test_a_program_that_only_just_compiles_may_still_not_fit():
    found = {
        "name": "phase2",
        "batch_key": "phase2.batch_size",
        "fits": False,
        "refused": None,
        "required_bytes": 15 * 2**30,
        "replication": 1.0,
        "largest_batch": {"images": 64, "how": "estimated"},
    }
    (line,) = check.problems(found, 12 * 2**30)
    assert line == (
        "phase2 does not fit: it needs 15.00 GiB of a device's HBM, of which 12.00 GiB can be "
        "used; try --config.phase2.batch_size=64"
    )


@aot
@pytest.mark.parametrize("name", [name for name in CHIPS if CHIPS[name].name.startswith("TPU")])
def test_the_compiler_knows_every_tpu_of_the_table(name):
    shape = "2x2" if name in ("v5e", "v6e") else "2x2x1"
    target = targets.target_of(f"{name}:{shape}")
    assert len(target.devices) == 4 * target.chip.devices
    assert target.devices[0].device_kind in target.chip.kinds


@aot
def test_a_batch_that_does_not_divide_names_the_nearest_that_does():
    with pytest.raises(ValueError, match="train.batch_size=18.*multiple of the 4.*nearest is 16$"):
        check_tiny(tiny.classifier_of("nowhere", train__batch_size=18))
    run = tiny.settings_of("nowhere", phase1__batch_size=20, phase1__groups=2)
    with pytest.raises(ValueError, match=r"phase1.batch_size=20: .*multiple of 8.* nearest is 16$"):
        check_tiny(run)


@aot
def test_unknown_programs_and_shapes_are_told():
    run = tiny.classifier_of("nowhere")
    known = "phase1, phase2, held_out, features$"
    with pytest.raises(ValueError, match=f"'sampler' is not a program.*{known}"):
        check_tiny(run, programs=("sampler",))
    with pytest.raises(ValueError, match="v5e:3x5x7: libtpu knows no such shape"):
        check_tiny(run, "v5e:3x5x7")


@pytest.mark.parametrize("name", ["v5e", "v9:2x2", "v5e:big", "h100:0", "h100:9", "h200:2x4"])
def test_topologies_that_are_none_are_told(name):
    with pytest.raises(ValueError, match=f"--topology={name}: accepted"):
        targets.target_of(name)


@pytest.mark.parametrize(
    ("topology", "module", "extra"),
    [("v5e:4x4", "libtpu", "aot"), ("h100:8", "jax_plugins.xla_cuda13", "cuda")],
)
def test_a_missing_compiler_is_one_clear_line(monkeypatch, topology, module, extra):
    real = importlib.util.find_spec

    def find_spec(name, package=None):
        return None if name == module else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(ValueError, match=f"{topology}: its compiler.*extra {extra}") as error:
        targets.target_of(topology)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_utilisation_that_cannot_be_is_told(share):
    with pytest.raises(ValueError, match="--utilisation"):
        check_tiny(tiny.classifier_of("nowhere"), utilisation=share)


@aot
def test_the_compile_cache_is_left_as_it_was(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    program, method, mesh, _ = _one(_layout(False))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        meter.compile_for(program.lower(method, mesh, None), "tpu")
        assert list(tmp_path.iterdir()) == []  # it could never be read back
        assert jax.config.jax_enable_compilation_cache
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
