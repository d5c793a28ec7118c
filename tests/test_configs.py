"""The shipped configs: every argument works, full sizes are those of the paper, smoke runs run."""

import ast
import functools
import itertools
import json
import math
import re
from pathlib import Path

import pytest

from configs import common
from flcl import cli, programs, settings
from flcl.runs.saved.differences import differing_keys
from flcl.settings import bridge

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path.name for path in (ROOT / "configs").glob("funlora_*.py"))
TEN = ["digits", "fashion16", "fashion_mnist", "cifar10"]
HUNDRED = ["cifar100", "imagenet100"]
OWN = ["images"]  # of users: any number of classes
CLASSIFIERS = sorted(path.name for path in (ROOT / "configs").glob("fmlora_*.py"))
EVERY = FILES + CLASSIFIERS
VARIANTS = {"fmlora_domainnet.py": ("", "protocol=cil-5x69")}  # with lines of their own


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@functools.cache
def load(name: str, arg: str = "") -> settings.Run:
    return bridge.freeze(cli.load_config(f"configs/{name}:{arg}"))


def funlora(name: str, arg: str = "") -> settings.FunLoRARun:
    return load(f"funlora_{name}.py", arg)


SMALL = ["funlora_fashion_mnist.py", "funlora_images.py"]


def planned(name: str) -> str:
    """The number of tasks that a config plans."""
    return "4" if name == "funlora_fashion16.py" else "5"  # its other two classes are learned later


def arguments(name: str) -> list[str]:
    """Every combination of words that a config accepts."""
    sizes = ("", "smoke", "small") if name in SMALL else ("", "smoke")
    tasks = (planned(name), "10" if name.endswith("100.py") else "2")
    baselines = ["", *(f"baseline={each}" for each in common.BASELINES)]
    families = ["", *(f"family={each}" for each in common.FAMILIES)]
    heads = baselines + [f for f in families if f] + ["baseline=joint,family=shift"]
    if name == "funlora_images.py":  # how many tasks there are is not known
        tasks = ("per:2", "per:5")
        heads = [head for head in heads if "joint" not in head]
    return [
        ",".join(filter(None, (size, head, count)))
        for size, head, count in itertools.product(
            sizes, heads, ("", *(f"tasks={each}" for each in tasks))
        )
    ]


def test_the_promised_configs_are_there():
    assert FILES == sorted(f"funlora_{name}.py" for name in TEN + HUNDRED + OWN)


@pytest.mark.parametrize("name", FILES)
def test_every_argument_freezes(name):
    seen = set()
    for arg in arguments(name):
        run = load(name, arg)
        assert run.stream.joint == ("joint" in arg)
        assert ("(smoke)" in run.name) == ("smoke" in arg)
        for method in common.UNPROTECTED:
            assert (run.method == method) == (method in arg)
        for family in common.FAMILIES:
            if re.search(rf"={family}(,|$)", arg):
                assert run.adapter.family == family
        seen.add(json.dumps(bridge.as_dict(run), sort_keys=True))
    # Different runs: 2 numbers of tasks for the 10 kinds; the smoke runs of both are the same ones.
    kinds = len(common.FAMILIES) + len(common.UNPROTECTED)
    kinds += len(["joint", "joint shift"]) if name != "funlora_images.py" else 0
    assert len(seen) == (5 if name in SMALL else 3) * kinds


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("smoke=1", "'smoke=1': accepted"),
        (
            "baseline=none",
            f"baseline={'|'.join(common.BASELINES)}",
        ),
        ("tasks=7", "tasks="),
        ("family", "'family': accepted"),
        ("baseline=finetune,family=shift", "finetune has no class factors"),
        ("baseline=vanilla_add,family=shift", "baseline=vanilla_add is a family too"),
        ("family=shift,family=shift", "'family' is given twice"),
    ],
)
def test_other_arguments_are_refused(name, arg, message):
    with pytest.raises(ValueError) as caught:
        load(name, arg)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", EVERY)
def test_minutes_shorten_what_needs_no_measurement(name):
    usual, short = load(name), load(name, "minutes=2.5")
    assert (usual.runtime.minutes, short.runtime.minutes) == (0.0, 2.5)
    changed = differing_keys(bridge.as_dict(usual), bridge.as_dict(short))
    keys = {line.split(":")[0] for line in changed} - {"runtime.minutes"}
    if name in CLASSIFIERS:
        assert keys == set()
        return
    # The steps stay those of the config: a run lowers them to what it has measured.
    assert keys <= {f"phase{n}.warmup_steps" for n in (1, 2)} | {
        "sample.solver",
        "sample.num_steps",
    }
    assert short.phase1.warmup_steps <= 500 and short.phase2.warmup_steps <= 50
    evaluations = short.sample.num_steps * (1 if short.sample.solver == "euler" else 2)
    assert evaluations <= 16
    assert load(name, "smoke,minutes=3").phase1.steps == 4


@pytest.mark.parametrize("value", ["0", "-1", "x", "1e3", "", "nan"])
def test_minutes_are_a_number_above_zero(value):
    for name in ("funlora_digits.py", "fmlora_digits.py"):
        with pytest.raises(ValueError, match="; minutes=N$"):
            load(name, f"minutes={value}")


def test_small_belongs_to_few_configs():
    for name in FILES:
        if name in SMALL:
            assert load(name, "small") != load(name)
        else:
            with pytest.raises(ValueError, match="'small': accepted"):
                load(name, "small")


@pytest.mark.parametrize("name", EVERY)
def test_docstring_shows_a_line_that_runs_this_config(name):
    doc = ast.get_docstring(ast.parse((ROOT / "configs" / name).read_text()))
    lines = re.findall(r"^    flcl (\w+) (.*)$", doc, re.MULTILINE)
    assert lines, "no run line"
    for program, words in lines:
        assert program in programs.names()
        assert f"--config={name.removesuffix('.py')}" in words
    for word in re.findall(r"`(--config\.[^`]+)`", doc):
        cli.parse(
            ["p", f"--config=configs/{name}", word.replace("PATH", "x")], lambda _: None, True
        )


@pytest.mark.parametrize("name", EVERY)
def test_every_change_from_a_default_has_a_comment(name):
    for line in _source(name).splitlines():
        if re.match(r"\s+config\.(?!name\b)\w[\w.]* = ", line):
            assert re.search(r"  # \S", line), line


@pytest.mark.parametrize("name", EVERY)
def test_every_line_changes_something(name):
    runs = [load(name, arg) for arg in VARIANTS.get(name, ("",))]
    defaults = settings.RUNS[runs[0].method]()
    # Spelled out although they are defaults, because they say what the data or the paper is like.
    stated = {"data.source", "data.image_size", "data.channels", "data.flip", "stream.tasks"}
    stated |= {"adapter.family", "model.variant"}
    for match in re.finditer(r"^ +config\.([\w.]+) = ", _source(name), re.MULTILINE):
        key = match[1]
        if key in stated or key == "name":
            continue
        assert any(bridge.value(run, key) != bridge.value(defaults, key) for run in runs), key


@pytest.mark.parametrize("name", TEN)
def test_ten_classes_come_in_tasks_of_two(name):
    tasks = funlora(name).stream.tasks
    assert tasks == planned(f"funlora_{name}.py")
    assert 2 * int(tasks) == (8 if funlora(name).data.source == "fashion16:0-7" else 10)
    assert funlora(name).stream.class_order == "natural"
    assert funlora(name, "tasks=2").stream.tasks == "2"


@pytest.mark.parametrize("name", HUNDRED)
def test_hundred_classes_come_in_five_or_ten_tasks(name):
    five, ten = funlora(name), funlora(name, "tasks=10")
    assert (five.stream.tasks, ten.stream.tasks) == ("5", "10")
    assert (five.phase2.steps, ten.phase2.steps) == (50_000, 25_000)
    assert five.phase1.groups <= 10 and five.phase2.groups <= 10


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet100"])
def test_full_size_recipe(name):
    """The optimiser, sampler and judge of the public code that the paper's network comes from."""
    run = funlora(name)
    one, two = run.phase1, run.phase2
    assert (one.steps, one.batch_size, one.learning_rate) == (100_000, 128, 2e-4)
    assert (one.warmup_steps, one.clip_norm, one.ema_decay, one.dropout) == (
        5_000,
        1.0,
        0.9999,
        0.1,
    )
    assert 20_000 <= two.steps <= 50_000
    assert (two.batch_size, two.learning_rate, two.ema_decay, two.dropout) == (
        128,
        3e-2,
        0.999,
        0.0,
    )
    assert run.adapter.family == "cosine_learnable"
    assert (run.adapter.functions, run.adapter.layers, run.adapter.sigma) == (10, "all", 0.3)
    assert (run.flow.time, run.flow.coupling) == ("uniform", "independent")
    assert (run.sample.solver, run.sample.num_steps) == ("heun", 50)  # 100 function evaluations
    judge = run.judge
    assert (judge.width, judge.epochs, judge.batch_size, judge.learning_rate) == (64, 200, 256, 0.1)
    assert (judge.weight_decay, judge.crop, judge.flip) == (5e-4, 4, True)
    assert (judge.images_per_class, judge.oversample, judge.current_task) == (0, 1.0, "synthetic")
    assert run.data.flip and run.data.channels == 3


@pytest.mark.parametrize(
    ("config", "usual", "before"), [("digits", ("midpoint", 2), 20), ("fashion16", None, 50)]
)
def test_the_sampler_of_earlier_versions_is_a_word(config, usual, before):
    short, run = funlora(config), funlora(config, "tasks=2,sampler=heun")
    assert usual in (None, (short.sample.solver, short.sample.num_steps))
    assert (run.sample.solver, run.sample.num_steps) == ("heun", before)
    assert run.name == f"{config}: cosine_learnable heun"


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_network(name):
    run = funlora(name)
    assert run.data.image_size == 32
    assert run.model == settings.Trunk(
        width=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), head_channels=64
    )


def test_imagenet_network():
    run = funlora("imagenet100")
    assert run.data.image_size == 64
    assert run.data.source.startswith("folder:")
    assert run.model == settings.Trunk(
        width=128, multipliers=(1, 2, 3, 4), blocks=2, attention=(32, 16, 8), head_channels=64
    )


@pytest.mark.parametrize(
    ("name", "arg", "trunk", "convolutions", "per_class"),
    [
        ("cifar10", "", 35_746_307, 65, 35_354),
        ("cifar10", "family=cosine", 35_746_307, 65, 34_054 + 650),
        ("cifar10", "baseline=vanilla_mult", 35_746_307, 65, 34_054),
        ("imagenet100", "", 89_535_619, 67, 50_694 + 67 * 20),
    ],
)
def test_published_sizes(name, arg, trunk, convolutions, per_class):
    """Counts of the paper, on a stream without its data: sizes do not depend on images."""
    from flcl import methods
    from flcl.data.sequence.stream import TaskStream

    run = funlora(name, arg)
    stream = TaskStream("cil", tuple(range(10)), (2,) * 5, False, 10)
    sizes = methods.build(run, stream).describe()
    assert sizes["trunk_parameters"] == trunk
    assert len(sizes["adapted_convolutions"]) == convolutions
    assert sizes["parameters_per_class"] == per_class


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("family", common.FAMILIES)
def test_each_family_has_its_own_learning_rate(name, family):
    run = load(name, f"family={family}")
    assert run.phase2.learning_rate == common.FACTOR_LEARNING_RATE[family]
    if family.startswith("vanilla"):
        assert run == load(name, f"baseline={family}")


def test_joint_needs_a_number_of_tasks():
    with pytest.raises(ValueError, match="the number of tasks, which per:2 leaves open"):
        funlora("images", "baseline=joint")


@pytest.mark.parametrize("name", [name for name in FILES if name != "funlora_images.py"])
def test_joint_has_the_steps_of_the_whole_sequence(name):
    for tasks in (planned(name), "10" if name.endswith("100.py") else "2"):
        own, joint = load(name, f"tasks={tasks}"), load(name, f"baseline=joint,tasks={tasks}")
        total = own.phase1.steps + (int(tasks) - 1) * own.phase2.steps
        assert joint.phase1.steps == total
        assert joint.model == own.model and joint.judge == own.judge
        assert joint.phase1.learning_rate == own.phase1.learning_rate


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("method", common.UNPROTECTED)
def test_unprotected_baselines_differ_only_where_they_must(name, method):
    own, other = bridge.as_dict(load(name)), bridge.as_dict(load(name, f"baseline={method}"))
    changed = {line.split(":")[0] for line in differing_keys(own, other)}
    allowed = {"adapter", "replay", "method", "name", "phase2.learning_rate", "phase2.dropout"}
    # Of a trunk that is frozen, and of a network without factors.
    allowed |= {"model.weights", "model.sha256", "sample.guidance", "straighten"}
    allowed |= {"guide", "jdcl"}  # the classifiers that some have
    assert changed <= allowed | {"phase2.groups"}
    assert other["phase2"]["learning_rate"] == own["phase1"]["learning_rate"]
    assert other["phase2"]["steps"] == own["phase2"]["steps"]


@pytest.mark.parametrize("name", FILES)
def test_a_batch_never_holds_more_classes_than_its_task(name):
    for arg in arguments(name):
        run = load(name, arg)
        classes = 8 if run.data.source == "fashion16:0-7" else 10
        classes = 100 if name.endswith("100.py") else classes
        if run.stream.tasks.startswith("per:"):
            assert run.phase1.groups <= int(run.stream.tasks.removeprefix("per:"))
            continue
        sizes = [int(part) for part in run.stream.tasks.split(",")]
        count = sum(sizes) if len(sizes) > 1 else classes
        sizes = sizes if len(sizes) > 1 else [classes // sizes[0]] * sizes[0]
        seen = list(itertools.accumulate(sizes))
        first = count if run.stream.joint else sizes[0]
        later = seen[1] if isinstance(run, settings.ReplayRun) else min(sizes[1:])
        assert run.phase1.groups <= first, arg
        assert run.stream.joint or run.phase2.groups <= later, arg


@pytest.mark.parametrize("name", FILES)
def test_smoke_keeps_what_the_config_is_about(name):
    full, smoke = load(name), load(name, "smoke")
    assert smoke.data.channels == full.data.channels
    assert smoke.data.flip == full.data.flip
    assert bool(smoke.model.attention) == bool(full.model.attention)
    assert smoke.data.source in ("digits", "fashion16")
    assert math.prod([smoke.phase1.steps, smoke.phase1.batch_size]) < 1_000


def test_smoke_runs(tmp_path, smoke_runs):
    """Each config; equal runs only once. Tiny runs of the baselines are in tests/runs."""
    # The digits first: the test of the wheel trains with the same compiled programs.
    names = sorted(FILES, key=lambda name: name != "funlora_digits.py")
    smoke_runs([(name, load(name, "smoke")) for name in names], tmp_path / "run")


def _source(name: str) -> str:
    """The lines of `get_config`."""
    text = (ROOT / "configs" / name).read_text()
    found = [node for node in ast.parse(text).body if getattr(node, "name", "") == "get_config"]
    return ast.get_source_segment(text, found[0])
