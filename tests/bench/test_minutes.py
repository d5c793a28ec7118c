"""Benchmarks within some minutes, on clocks made by hand, and the table of a profile."""

import io
import json

import jax
import pytest
from rich.console import Console

from flcl import waiting
from flcl.bench import figures, profile, show, suite
from flcl.bench.items import judges, memory, peers
from flcl.bench.profile import GROUPS, Instruction, group_of, parsed


class Clock:
    """Seconds that pass only while an item runs."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def item(self, *seconds, error=None):
        """An item that finds a figure after each of `seconds`, and then raises `error`."""

        def run(size, rounds):
            """Takes its time."""
            for number, length in enumerate(seconds):
                self.now += length
                yield figures.counted(f"item/{number}", 1, 2)
            if error:
                raise error

        return run


@pytest.fixture
def clock(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield Clock()
    jax.config.update("jax_compilation_cache_dir", before)


def within(minutes, items, size, clock, monkeypatch):
    """The names of the figures, and the lines that were said."""
    monkeypatch.setattr(suite, "ITEMS", items)
    lines = []
    found = suite.run_within(items, size, 1, lines.append, minutes, clock)
    return [figure.name for figure in found], lines


def test_an_item_that_would_not_fit_is_left_out_and_named(size, clock, monkeypatch):
    items = {"first": clock.item(40.0), "second": clock.item(10.0), "third": clock.item(1.0)}
    names, lines = within(1.0, items, size, clock, monkeypatch)
    # Nothing is known of any item, and 30 seconds is the guess.
    assert names == ["item/0"] and size.guess == 30.0
    assert lines[1:] == [
        "second: left out, it may take 30 s and 20 s are left",
        "third: left out, it may take 30 s and 20 s are left",
    ]
    # The next time the first one is known. It takes longer than what the others need.
    clock.now = 0.0
    names, lines = within(0.6, items, size, clock, monkeypatch)
    assert lines[0] == "first: left out, it takes about 40 s and 36 s are left"
    assert names == ["item/0"] and lines[1] == "second: Takes its time."
    clock.now = 0.0
    assert within(0.6, items, size, clock, monkeypatch)[0] == ["item/0"]


def test_the_time_may_end_inside_an_item(size, clock, monkeypatch):
    items = {"long": clock.item(50.0, 50.0, 50.0), "next": clock.item(1.0)}
    names, lines = within(1.0, items, size, clock, monkeypatch)
    assert names == ["item/0", "item/1"]
    assert lines[-1] == "long: ended after item/1, because the time is over"


def test_an_item_that_fails_does_not_stop_the_others(size, clock, monkeypatch):
    items = {
        "large": clock.item(1.0, error=RuntimeError("RESOURCE_EXHAUSTED:\nno memory")),
        "absent": clock.item(error=peers.MissingError("not installed: torch")),
        "last": clock.item(1.0),
    }
    names, lines = within(9.0, items, size, clock, monkeypatch)
    assert names == ["item/0", "item/0"]
    assert "large: failed, RESOURCE_EXHAUSTED: no memory" in lines
    assert "absent: left out, not installed: torch" in lines
    stored = json.loads((waiting._file()).read_text())
    assert [name.split()[1] for name in sorted(stored)] == ["absent", "last"], (
        "a failure is no time"
    )


def test_a_stop_is_no_failure(size, clock, monkeypatch):
    items = {"long": clock.item(1.0, error=KeyboardInterrupt())}
    with pytest.raises(KeyboardInterrupt):
        within(9.0, items, size, clock, monkeypatch)


def test_all_items_have_a_place_among_the_wanted_ones():
    assert sorted(suite.WANTED) == sorted(suite.ITEMS)
    assert suite.most_wanted(["first_step", "vit_step", "phase1_step"]) == [
        "phase1_step", "vit_step", "first_step"
    ]  # fmt: skip


def test_figures_are_written_as_they_are_found(launch, tmp_path):
    target = tmp_path / "found.json"
    words = ("--only=bytes_per_class", "--minutes=5", f"--json={target}")
    done = launch("benchmark", *words, env={"JAX_COMPILATION_CACHE_DIR": str(tmp_path)})
    assert "  bytes_per_class: ratio " in done.stdout
    assert [entry["name"] for entry in json.loads(target.read_text())] == ["bytes_per_class"]
    for words, text in (
        (["--minutes=0"], "--minutes=0.0: above 0 and at most 100000 are accepted"),
        (["--profile=phase3"], "--profile=phase3: accepted are phase1, phase2, fmlora"),
    ):
        assert text in launch("benchmark", *words, code=2).stderr


def test_a_figure_is_one_line():
    figure = figures.timed("vit_step", [2.0, 2.0], [4.0, 4.0], steps_per_second=0.5)
    told = "  vit_step: ratio 0.500, quartiles 0.500 - 0.500, bar 0.70, seconds 2, reference 4, "
    assert show.line(figure) == told + "steps/s 0.5"


TEXT = """HloModule jit_one
%fused_computation.1 (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %dot.3 = f32[4]{0} dot(%p, %p), metadata={op_name="jit(one)/jvp(ViT)/block/qkv/dot_general"}
}

%fused_computation.2 (p: f32[4]) -> f32[4] {
  %p.2 = f32[4]{0} parameter(0)
  ROOT %add.3 = f32[4]{0} add(%p.2, %p.2), metadata={op_name="jit(one)/jvp(UNet)/norm1/GroupNorm_0/add"}
}

ENTRY %main (a: f32[4]) -> (f32[4], f32[4]) {
  %c.1 = (f32[4]{0}, u8[0]{0}) custom-call(%a), metadata={op_name="jit(one)/jvp(UNet)/in/conv_general_dilated"}
  %f.1 = f32[4]{0} fusion(%a), kind=kOutput, calls=%fused_computation.1, metadata={op_name="jit(one)/mul"}
  %f.2 = f32[4]{0} fusion(%a), kind=kLoop, calls=%fused_computation.2
  %m.1 = f32[4]{0} multiply(%a, %a), metadata={op_name="jit(one)/jvp(modulation)/vmap()/mul"}
  %u.1 = f32[4]{0} multiply(%a, %a), metadata={op_name="jit(one)/jit(tree_bias_correction)/div"}
  %r.1 = f32[4]{0} all-reduce-start(%u.1), replica_groups={{0,1}}, metadata={op_name="jit(one)/add"}
  %n.1 = u32[4]{0} xor(%a, %a), metadata={op_name="jit(one)/jit(_threefry_fold_in)/xor"}
  %s.1 = f32[4]{0} multiply(%a, %a), metadata={op_name="jit(one)/transpose(jvp(UNet))/silu/mul"}
  ROOT %w.1 = (f32[4]{0}, s32[]) while(%a), condition=%c, body=%b, metadata={op_name="jit(one)/jvp()/while"}
}
"""  # noqa: E501


def test_instructions_belong_to_the_group_of_their_operation():
    instructions = parsed(TEXT)
    assert instructions["dot.3"] == [Instruction("dot", "jit(one)/jvp(ViT)/block/qkv/dot_general")]
    groups = {
        "c.1": "convolutions",
        "f.1": "matrix products",  # what is fused with a product takes no time beside it
        "f.2": "norms",
        "m.1": "modulation",
        "u.1": "optimiser",
        "r.1": "exchange",
        "n.1": "other",
        "s.1": "other",
        "w.1": None,  # its body has events of its own
        "unknown.7": "other",
    }
    assert {name: group_of(name, instructions) for name in groups} == groups


def test_the_profile_of_a_tiny_step(size):
    found = profile.profile("phase1", size)
    assert tuple(found.seconds) == GROUPS and found.devices == jax.device_count() == 4
    assert sum(found.shares.values()) == pytest.approx(1.0)
    # Four devices add up their gradients.
    for group in ("convolutions", "norms", "modulation", "optimiser", "exchange"):
        assert found.seconds[group] > 0, group
    assert found.shares["convolutions"] > 0.02 and found.shares["other"] < 0.6
    assert sum(found.seconds.values()) < 8 * found.wall * jax.device_count()
    console = Console(width=100, record=True, file=io.StringIO())
    show.print_profile(found, console)
    text = console.export_text()
    assert all(group in text for group in GROUPS) and "one step of 4 devices" in text
    entries = show.profile_json(found)
    assert [entry["name"] for entry in entries] == [f"profile/phase1/{name}" for name in GROUPS]


def test_the_peak_of_a_device_counts_only_if_it_has_risen():
    class Device:
        platform = "gpu"

        def __init__(self, *peaks):
            self.peaks = list(peaks)

        def memory_stats(self):
            return {"peak_bytes_in_use": self.peaks.pop(0)}

    class Training:
        def __init__(self, device):
            self.mesh = type("Mesh", (), {"devices": jax.numpy.zeros(())})
            self.mesh.devices = type("Devices", (), {"flat": [device]})

        def __call__(self):
            return ()

    assert memory.device_peak(Training(Device(5, 9))) == 9
    assert memory.device_peak(Training(Device(9, 9))) is None
    assert memory.device_peak(Training(jax.devices()[0])) is None, "a CPU does not count"


def test_the_judge_of_the_benchmark_is_the_judge_of_runs(size):
    """The step goes on from its own state: the loss of a batch that repeats falls."""
    (found,) = judges.judge_step(size, 1)
    assert found.name == "judge_step" and found.steps_per_second > 0
    assert found.images_per_second == pytest.approx(8 * found.steps_per_second)
