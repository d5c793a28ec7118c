"""Every benchmark builds and finds finite figures, and both of its sides do the same work."""

import datetime
import importlib.util
import inspect
import io
import json
import math
import os

import jax
import numpy as np
import pytest
from campaign import trial
from rich.console import Console

from flcl.adapters.modulate import STRATEGIES
from flcl.bench import figures, programs, show, sizes, suite
from flcl.bench.items import convolutions, loops, tasks
from flcl.bench.items.generators import Sampling
from flcl.ops import pixels

# Peers are not installed where the tests run.
ITEMS = [name for name in suite.ITEMS if not name.startswith(("torchcfm", "peft"))]
PER_RUN = 2


def items_of(day: int, wanted: str = "") -> list[str]:
    """The items that run on a day of the year; `wanted`: their names instead, or `all`."""
    if wanted:
        return ITEMS if wanted == "all" else suite.select(wanted.split(","))
    start = day * PER_RUN % len(ITEMS)
    return (ITEMS + ITEMS)[start : start + PER_RUN]


TODAY = items_of(
    datetime.datetime.now(datetime.UTC).timetuple().tm_yday, os.environ.get("FLCL_BENCH_ITEMS", "")
)


@pytest.mark.parametrize("day", [1, 200, 350])
def test_a_few_days_run_every_item(day):
    days = -(-len(ITEMS) // PER_RUN)
    runs = [items_of(number) for number in range(day, day + days)]
    assert all(len(names) == PER_RUN for names in runs)
    assert {name for names in runs for name in names} == set(ITEMS)


def test_items_can_be_asked_for():
    assert items_of(1, "all") == ITEMS
    assert items_of(1, "sampler,first_step") == ["first_step", "sampler"]
    with pytest.raises(ValueError, match="no such benchmark"):
        items_of(1, "samplr")


def test_every_item_is_listed_with_a_summary_and_its_bars():
    """Always, for all of them, because only two run."""
    console = Console(width=200, record=True, file=io.StringIO())
    show.print_list(console)
    rows = {}
    for line in console.export_text().splitlines():
        cells = [cell.strip() for cell in line.strip("│┃ ").split("│")]
        rows[cells[0]] = cells[1:]
    for name, function in suite.ITEMS.items():
        assert list(inspect.signature(function).parameters) == ["size", "rounds"]
        bars = [bar for key, bar in figures.BARS.items() if key.partition("/")[0] == name]
        assert rows[name] == [", ".join(f"{bar:.2f}" for bar in bars), suite.summary(name)]
        assert suite.summary(name)


def found_by(name, size) -> list[figures.Figure]:
    lines = []
    found = list(suite.run([name], size, 1, lines.append))
    assert lines == [f"{name}: {suite.summary(name)}"]
    return found


@pytest.mark.parametrize("name", TODAY)
def test_an_item_finds_finite_figures(name, size, monkeypatch):
    """Two items a day in turn, because all of them take minutes and change seldom.

    `FLCL_BENCH_ITEMS=NAME,...` runs others, `FLCL_BENCH_ITEMS=all` runs all.
    """
    if name == "first_step":  # it compiles in processes of its own: no optimiser is worth it
        flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        monkeypatch.setenv("XLA_FLAGS", flags)
    found = found_by(name, size)
    assert found
    for figure in found:
        assert figure.name.startswith(name) and figure.rounds == 1 and figure.backend == "cpu"
        values = figure.as_dict()
        numbers = {k: v for k, v in values.items() if isinstance(v, float) and k != "spread"}
        assert {"ratio", "ratio_low", "ratio_high"} <= set(numbers)
        assert all(math.isfinite(v) and v > 0 for v in numbers.values()), numbers
        assert figure.mfu is None  # nobody knows the peak of this processor
        if not any(word in figure.name for word in ("bytes", "loss", "peak_memory")):  # counted
            assert figure.median_seconds > 0 and figure.reference_seconds > 0
    assert json.loads(json.dumps([figure.as_dict() for figure in found]))
    names = [figure.name for figure in found]
    assert len(set(names)) == len(names)
    # A bar that belongs to no figure would never be missed.
    barred = {figure.name for figure in found if figure.bar is not None}
    for key in figures.BARS:
        if key.partition("/")[0] == name:
            assert any(figure == key or figure.startswith(f"{key}/") for figure in barred), key


def test_every_bar_belongs_to_an_item():
    assert {key.partition("/")[0] for key in figures.BARS} <= set(suite.ITEMS)


def test_all_strategies_do_the_same_work(size):
    side, channels, batch = size.convolutions[0]
    arguments = convolutions.inputs(side, channels, batch, 2, "float32")
    results = [jax.jit(convolutions.gradients(name))(*arguments) for name in STRATEGIES]
    for value, gradients in results[1:]:
        np.testing.assert_allclose(value, results[0][0], rtol=1e-4)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            gradients,
            results[0][1],
        )
    # Of x, of the shared kernel and of every factor, none of them zero.
    _, (x, kernel, factors) = results[0]
    assert x.shape == arguments[0].shape and kernel.shape == arguments[1].shape
    assert set(factors) == {"a", "b", "alpha", "omega"}
    assert all(float(abs(leaf).max()) > 0 for leaf in jax.tree.leaves((x, kernel, factors)))


def test_the_bare_loop_draws_the_samplers_images(size):
    sampling = Sampling(size.generator_run())
    images, bare = sampling()[0], np.asarray(pixels.to_uint8(sampling.bare()))
    assert images.shape == bare.shape == (4, 16, 16, 3)
    assert np.abs(images.astype(int) - bare).max() <= 1  # rounding of the last bit
    noise = Sampling(size.generator_run(sample__num_steps=1)).bare()
    assert np.abs(np.asarray(noise) - np.asarray(sampling.bare())).max() > 1e-3


def test_the_unmodulated_step_trains_the_same_network(size):
    # Unrolled: the work inside a loop would be counted once.
    run = size.generator_run(adapter__strategy="loop")
    plain = programs.Training(run, 1, programs.Unmodulated)
    modulated = programs.Training(run, 1)
    trunks = [jax.tree.map(np.shape, t._state.trainable["trunk"]) for t in (plain, modulated)]
    assert trunks[0] == trunks[1] and plain.images == modulated.images == 8
    assert plain._state.trainable["factors"] == {} != modulated._state.trainable["factors"]
    assert 0 < plain.flops < modulated.flops and 0 < plain.bytes < modulated.bytes
    (_, first), (_, second) = plain(), plain()
    assert float(first["loss"]) != float(second["loss"])


def test_the_real_loop_reads_the_loaders_batches(size, monkeypatch):
    loop = loops.Loops(size.generator_run(), 2)
    seen = []
    monkeypatch.setattr(loop, "_train", lambda source: seen.append(list(source)))
    loop.real(), loop.constant()
    for number, batch in enumerate(seen[0]):
        np.testing.assert_array_equal(batch["images"], loop.dataset[number]["images"])
    assert [batch is seen[1][0] for batch in seen[1]] == [True, True] and len(seen[0]) == 2
    np.testing.assert_array_equal(seen[1][0]["images"], loop.dataset[0]["images"])


def test_the_watch_keeps_seconds_between_records():
    times = iter([0.0, 3.0, 4.0, 10.0, 11.5])
    watch = tasks.Watch(clock=lambda: next(times))

    class Task:
        index = 1

    for task in (1, 2):
        Task.index = task
        watch.begin_task(Task, task, 0)
        watch.record(1, {})
        if task == 1:
            watch.record(2, {})
    kept = jax.numpy.zeros(1000)
    watch.evaluated(Task, {}, {})
    assert watch.seconds == {1: [3.0, 1.0], 2: [1.5]}
    assert watch.bytes[2] == kept.nbytes


def test_a_start_that_fails_says_why(size, monkeypatch):
    monkeypatch.setattr(loops, "COLD_START", "flcl.bench.no_such_program")
    with pytest.raises(ValueError, match="first_step: the process ended early.*no_such_program"):
        list(loops.first_step(size, 1))


@pytest.mark.parametrize("name", ["torchcfm_step", "torchcfm_sampler", "peft_step"])
def test_a_missing_peer_is_one_line(name, size, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    lines = []
    assert list(suite.run([name], size, 1, lines.append)) == []
    assert len(lines) == 2 and lines[1].startswith(f"{name}: left out, not installed: torch, ")
    assert "pip install torch " in lines[1]


def test_the_peak_is_of_the_device_or_unknown():
    class Device:
        def __init__(self, kind):
            self.device_kind = kind

    assert programs.peak_flops(jax.devices()[0]) is None
    assert programs.peak_flops(Device("NVIDIA H200")) == 989e12
    # Of two names that both fit, the longer one is meant.
    assert programs.peak_flops(Device("TPU v5 lite")) == 197e12
    assert programs.peak_flops(Device("TPU v5p")) == 459e12
    rates = programs.rates(10, 1e9, [0.4, 0.5, 9.0])
    assert rates == {"images_per_second": 20.0, "mfu": None}


def test_select_keeps_the_order_and_knows_near_names():
    assert suite.select([]) == list(suite.ITEMS)
    assert suite.select([" sampler", "first_step"]) == ["first_step", "sampler"]
    with pytest.raises(
        ValueError, match="--only=samplr: no such benchmark. Did you mean 'sampler'"
    ):
        suite.select(["samplr"])


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="--size=huge: accepted are small, medium, full"):
        sizes.find("huge")


def test_the_table_shows_what_was_missed():
    reached = figures.counted("bytes_per_class", 1, 2, "twenty classes")
    missed = figures.timed("sampler", [3.0, 3.0], [2.0, 2.0], images_per_second=5.0)
    console = Console(width=140, record=True, file=io.StringIO())
    show.print_table([reached, missed], console)
    text = console.export_text()
    assert "1 of 2 bars reached; missed: sampler" in text and "bytes_per_class: twenty" in text
    assert "MFU" not in text and "1.500" in text and "images/s" in text


def test_program_prints_json(launch, tmp_path):
    done = launch("benchmark", "--only=bytes_per_class", "--json=-", "--strict")
    (entry,) = json.loads(done.stdout)
    assert set(entry) >= {
        "name", "ratio", "bar", "median_seconds", "reference_seconds", "rounds", "backend"
    }  # fmt: skip
    assert entry["name"] == "bytes_per_class" and 0.5 < entry["ratio"] <= entry["bar"] == 1.1
    assert "1 of 1 bars reached" in done.stderr


def test_program_refuses_and_lists():
    for words, text in (
        (["--only=samplr"], "--only=samplr: no such benchmark. Did you mean 'sampler'?"),
        (["--json=none/there.json"], "--json=none/there.json: there is no folder 'none'"),
    ):
        done = trial.command("benchmark", *words)
        assert done.code == 2 and text in done.err
    done = trial.command("benchmark", "--list")
    assert done.code == 0
    listed = done.out
    assert all(name in listed for name in suite.ITEMS) and "0.70, 0.50" in listed
