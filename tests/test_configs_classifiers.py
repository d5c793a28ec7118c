"""The classifiers' configs: every argument works, protocols and recipes are those they name."""

import dataclasses
import functools
import itertools
import json
from pathlib import Path

import pytest

from configs import classifiers
from flcl import cli, settings
from flcl.runs.saved.differences import differing_keys
from flcl.settings import bridge
from flcl.settings.classifier.heads import Drift, Ridge

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["cifar10", "cifar100", "cub200", "digits", "domainnet", "imagenet_r", "images", "pacs"]
PEERS = ["cifar100", "cub200", "domainnet", "imagenet_r"]
CHOICES = {
    "cifar100": ["tasks=10", "tasks=5", "tasks=20"],
    "imagenet_r": ["tasks=10", "tasks=5", "tasks=20"],
    "images": ["tasks=per:2", "tasks=per:5", "tasks=per:10"],
    "domainnet": ["protocol=dil-6", "protocol=cil-5x69"],
}
_TRAINING = [field.name for field in dataclasses.fields(settings.Train)]
KINDS = [
    *("", "paper", "no_drs", "no_dmp", "no_drs,no_dmp", "baseline=joint", "baseline=joint,paper"),
    *(f"baseline={each}" for each in classifiers.METHODS),
]
# Keys of FM-LoRA that no part of a baseline reads, beside its adapters, ranks and prompt.
_HEADS = {"heads.fit"} | {f"drift.{each.name}" for each in dataclasses.fields(Drift)}
_FROZEN = {"data.flip", "model.remat", "drift", "memory", *_HEADS}
_FROZEN |= {f"train.{name}" for name in _TRAINING if name != "eval_batch_size"}
UNREAD = {
    "frozen": _FROZEN,
    "class_mean": _FROZEN | {"head"},
    "ranpac": _FROZEN,
    "linear_probe": {"model.remat", "train.learning_rate", "drift", "memory", *_HEADS}
    - {"heads.fit"},
    "first_session": {"drift", "memory", *_HEADS},
    "ranpac_adapted": {"drift", "memory", *_HEADS},
    "finetune": {"model.trunk_dtype", "model.keep_lower"},
    "slca": {"model.trunk_dtype", "model.keep_lower", "align", "head"},
    "inflora": {"lora.sites", "lora.energy", "lora.final_energy"},
    "rsiat": {"bottleneck", "align", "head", "drift.correction", "train.loss", "train.scale"}
    | {"train.margin", "train.align", "train.steer", "train.steer_warmup", "train.steer_margin"}
    | {"train.steer_apart"},
}
PUBLISHED = {f"baseline={word}": set(keys) for word, keys in classifiers.KEYS.items()}


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@functools.cache
def load(name: str, arg: str = "") -> settings.ClassifierRun:
    return bridge.freeze(cli.load_config(f"configs/fmlora_{name}.py:{arg}"))


def joined(*words: str) -> str:
    return ",".join(filter(None, words))


def test_the_promised_configs_are_there():
    assert sorted(p.stem for p in (ROOT / "configs").glob("fmlora_*.py")) == [
        f"fmlora_{name}" for name in NAMES
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_freezes(name):
    seen, choices = set(), CHOICES.get(name, [""])
    for size, kind, choice in itertools.product(("", "smoke"), KINDS, ("", *choices)):
        run = load(name, joined(size, kind, choice))
        assert run.stream.joint == ("joint" in kind)
        baseline = kind.removeprefix("baseline=")
        assert run.method == classifiers.METHODS.get(baseline, "fmlora")
        assert ("(smoke)" in run.name) == (size == "smoke")
        if run.method == "fmlora":
            # Ours has no prompt and a rank by need; the three words are about the paper's form.
            words = set(kind.split(",")) & set(classifiers.FORMS)
            selector = "full" if "no_drs" in words else "centred"
            assert run.rank.selector == (selector if words else "energy:0.99")
            assert run.prompt.tokens == (10 if words and "no_dmp" not in words else 0)
        seen.add(json.dumps(bridge.as_dict(run), sort_keys=True))
    # Smoke runs of all choices are the same ones, but for the protocol in their names.
    smokes = len(choices) if name == "domainnet" else 1
    assert len(seen) == len(KINDS) * (len(choices) + smokes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("smoke=1", "'smoke=1': accepted"),
        ("baseline=replay", f"{'|'.join(classifiers.METHODS)}|joint"),
        ("tasks=7", "'tasks=7': accepted"),
        ("no_drs=1", "'no_drs=1': accepted"),
        ("baseline=sd_lora,no_dmp", "no_dmp: sd_lora is another method"),
        ("no_drs,baseline=finetune", "no_drs: finetune is another method"),
        ("no_drs,baseline=joint", "no_drs: joint has one task"),
        ("smoke,smoke", "'smoke' is given twice"),
    ],
)
def test_other_arguments_are_refused(name, arg, message):
    with pytest.raises(ValueError) as caught:
        load(name, arg)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind])
def test_comparisons_differ_only_where_they_must(name, kind):
    """Same data, backbone, augmentation, epochs and adapters as FM-LoRA."""
    own, other = bridge.as_dict(load(name)), bridge.as_dict(load(name, kind))
    changed = {line.split(":")[0] for line in differing_keys(own, other)}
    allowed = {
        "baseline=joint": {"stream.joint"},
        "baseline=finetune": {"train.learning_rate"},
        "paper": {"prompt.tokens", "rank.selector"},
        "no_drs": {"prompt.tokens", "rank.selector"},
        "no_dmp": {"rank.selector"},
    }
    own_keys = set()
    for word in kind.split(","):
        own_keys |= allowed.get(word, set())
    if own["method"] != other["method"]:
        own_keys |= {"method", "lora", "rank", "prompt"}
        lora = ("combine", "later_factor", "bases", "coverage", "capacity", "grow")
        own_keys |= {f"lora.{name}" for name in lora}
        own_keys |= {"lora.magnitudes"} if kind == "baseline=sd_lora" else set()
        own_keys |= UNREAD.get(kind.removeprefix("baseline="), set()) | PUBLISHED.get(kind, set())
    assert {"name"} | allowed.get(kind, set()) <= changed <= {"name"} | own_keys


@pytest.mark.parametrize("name", NAMES)
def test_finetuning_is_slower_than_adapting(name):
    run = load(name, "baseline=finetune")
    assert run.train.learning_rate == pytest.approx(load(name).train.learning_rate / 10)
    assert run.train.head_learning_rate == load(name).train.head_learning_rate


@pytest.mark.parametrize(
    ("name", "arg", "capacity", "tasks", "epochs"),
    [
        ("cifar10", "", 10, "5", 5),
        ("cifar100", "", 100, "10", 20),
        ("cifar100", "tasks=5", 100, "5", 20),
        ("cifar100", "tasks=20", 100, "20", 20),
        ("imagenet_r", "", 200, "10", 30),
        ("imagenet_r", "tasks=5", 200, "5", 30),
        ("imagenet_r", "tasks=20", 200, "20", 30),
        ("cub200", "", 200, "10", 20),
        ("domainnet", "protocol=cil-5x69", 345, "5", 10),
    ],
)
def test_class_incremental_protocols(name, arg, capacity, tasks, epochs):
    run = load(name, arg)
    assert (run.stream.scenario, run.stream.domain_order) == ("cil", "natural")
    assert (run.stream.capacity, run.stream.tasks, run.train.epochs) == (capacity, tasks, epochs)
    assert capacity % int(tasks) == 0
    assert run.stream.class_order == ("natural" if name == "cifar10" else "seed:1993")


@pytest.mark.parametrize(
    ("name", "domains", "classes"),
    [
        ("domainnet", "clipart,infograph,painting,quickdraw,real,sketch", 345),
        ("pacs", "photo,art_painting,cartoon,sketch", 7),
    ],
)
def test_domain_incremental_protocols(name, domains, classes):
    run = load(name)
    assert (run.stream.scenario, run.stream.tasks) == ("dil", "domains")
    assert (run.stream.domain_order, run.stream.capacity) == (domains, classes)


def test_the_two_protocols_of_domainnet_have_two_names():
    names = {load("domainnet", f"protocol={each}").name for each in ("dil-6", "cil-5x69")}
    assert names == {"DomainNet dil-6: fmlora", "DomainNet cil-5x69: fmlora"}


@pytest.mark.parametrize("name", PEERS)
def test_recipe_of_the_peers(name):
    """Backbone, input range, optimiser and adapter that published figures were made with."""
    run = load(name)
    assert (run.data.image_size, run.model.variant, run.model.normalize) == (224, "B/16", "unit")
    assert run.model.weights == "hub:timm/vit_base_patch16_224.augreg_in21k_ft_in1k"
    train = run.train
    assert (train.optimizer, train.schedule, train.batch_size) == ("adam", "cosine", 128)
    assert (train.learning_rate, train.head_learning_rate, train.min_crop) == (5e-4, 1e-3, 0.05)
    assert (run.lora.rank, run.lora.sites, run.lora.blocks) == (10, ("q", "v"), "all")
    assert (run.lora.scale, run.lora.combine) == (1.0, "sum")
    assert run.rank.candidates == (2, 4, 6, 8, 10) and run.data.flip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["", "baseline=sd_lora"])
def test_smoke_is_small_and_needs_no_files(name, kind):
    full, smoke = load(name, kind), load(name, joined("smoke", kind))
    assert (smoke.data.source, smoke.model.weights) == ("digits", "tiny")
    assert (smoke.model.variant, smoke.data.image_size) == ("Nano/4", 16)
    assert (smoke.stream.scenario, smoke.stream.tasks) == ("cil", "5,5")
    images = 5 * smoke.data.train_per_class
    assert smoke.train.epochs * images / smoke.train.batch_size <= 3
    assert (smoke.method, smoke.lora, smoke.data.flip) == (full.method, full.lora, full.data.flip)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["ranpac", "ranpac_adapted"])
def test_ranpac_is_as_published_and_small_in_a_smoke_run(name, kind):
    full, smoke = (load(name, joined(word, f"baseline={kind}")) for word in ("", "smoke"))
    assert full.head == smoke.head == "ridge"
    assert full.ridge == Ridge(width=10_000, rule="split", centred=False, unit=False)
    assert smoke.ridge == dataclasses.replace(full.ridge, width=64)


def test_published_recipes():
    run = load("imagenet_r", "baseline=slca")
    assert (run.train.optimizer, run.train.learning_rate) == ("sgd", 1e-4)
    assert (run.train.head_learning_rate, run.head, run.drift.correction) == (
        1e-2,
        "linear",
        "none",
    )
    align = run.align
    assert (align.epochs, align.batch_size, align.temperature, align.decay) == (5.0, 256, 0.1, 0.1)
    run = load("imagenet_r", "baseline=rsiat")
    assert (run.train.loss, run.train.scale, run.train.margin) == ("cosine", 50.0, 0.2)
    assert (run.bottleneck.width, run.drift.correction, run.align.epochs) == (64, "shift", 10.0)


@pytest.mark.parametrize("name", NAMES)
def test_weights_stay_a_key(name):
    words = [f"--config=configs/fmlora_{name}.py", "--config.model.weights=mine.npz"]
    run = cli.parse(["p", *words], lambda _: None, True).run
    assert run.model.weights == "mine.npz"


def test_smoke_runs(tmp_path, smoke_runs):
    """Each config; equal runs only once. Tiny runs of the baselines are in tests/runs."""
    runs = [(f"fmlora_{name}.py", load(name, "smoke")) for name in NAMES]
    run = smoke_runs(runs, tmp_path / "run")
    # What was looked up in the weights file is filled in.
    assert run.model.normalize != "weights" and len(run.model.sha256) == 64
