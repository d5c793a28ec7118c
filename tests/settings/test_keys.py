"""Every key says what it accepts; values that do not fit each other are named."""

import dataclasses
import math
import re
import typing

import pytest
from edited import flat, set_value, small, with_value

from flcl import cli, settings
from flcl.runs.saved.differences import decisive
from flcl.settings import bridge, keys

# One value outside the accepted range for each key that has one.
OUTSIDE = [
    ("seed", -1),
    ("seed", 2**32),
    ("data.image_size", 0),
    ("data.test_fraction", 1.0),
    ("data.test_fraction", 0.0),
    ("data.memory_gib", -1.0),
    ("stream.capacity", -1),
    ("model.width", 0),
    ("model.blocks", 0),
    ("model.head_channels", 0),
    ("model.multipliers", ()),
    ("model.multipliers", (1, 0)),
    ("model.attention", (0,)),
    ("adapter.functions", 0),
    ("adapter.sigma", 0.0),
    ("adapter.learning_rate", -1.0),
    *((f"{phase}.{key}", 0) for phase in ("phase1", "phase2") for key in ("steps", "batch_size")),
    ("phase1.groups", 0),
    ("phase2.learning_rate", float("nan")),
    ("phase1.clip_norm", 0.0),
    ("phase1.warmup_steps", -1),
    ("phase2.ema_decay", 1.0),
    ("phase1.dropout", 1.0),
    ("phase1.dropout", -0.1),
    ("sample.num_steps", 0),
    *(("sample.guidance", value) for value in (-1.0, 100.5)),
    ("straighten.steps", -1),
    ("straighten.pairs", 0),
    ("straighten.num_steps", 0),
    ("straighten.learning_rate", -1.0),
    ("adapter.record_ranks", -1),
    ("sample.chunk", 0),
    ("sample.rtol", 0.0),
    ("sample.atol", -1.0),
    ("judge.width", 0),
    ("judge.stages", 5),
    ("judge.epochs", 0.0),
    ("judge.batch_size", 0),
    ("judge.learning_rate", 0.0),
    ("judge.weight_decay", -1.0),
    ("judge.crop", -1),
    ("judge.images_per_class", -1),
    ("judge.oversample", 0.0),
    ("judge.repeats", 0),
    ("runtime.fsdp", 0),
    ("runtime.save_every", 0),
    ("runtime.log_every", 0),
    ("runtime.steps_per_call", 0),
    ("runtime.threads", 0),
    ("runtime.prefetch", 0),
    ("runtime.minutes", -1.0),
    ("data.train_per_class", -1),
    ("data.test_per_class", -1),
]

OUTSIDE_CLASSIFIER = [
    ("model.layer_norm_eps", 0.0),
    ("model.registers", -1),
    ("model.registers", 1_025),
    ("train.epochs", 0.0),
    ("train.first_epochs", -1.0),
    ("train.scale", 0.0),
    ("train.margin", 1.0),
    ("train.batch_size", 0),
    ("train.learning_rate", 0.0),
    ("train.head_learning_rate", 0.0),
    ("train.warmup", 1.0),
    ("train.clip_norm", 0.0),
    ("train.min_crop", 0.0),
    ("train.min_crop", 1.1),
    ("train.eval_batch_size", 0),
    ("lora.rank", 0),
    ("lora.scale", 0.0),
    ("lora.later_factor", 0.0),
    ("lora.capacity", -1),
    ("lora.grow", 0.0),
    ("lora.grow", 1.0),
    ("rank.candidates", ()),
    ("rank.candidates", (0, 2)),
    ("rank.temperature", 0.0),
    ("rank.final_temperature", 0.0),
    ("rank.schedule", 0.0),
    ("rank.schedule", 1.0),
    ("rank.penalty", -0.1),
    ("rank.learning_rate", 0.0),
    ("rank.probe_epochs", 0.0),
    ("rank.holdout", 1.0),
    ("prompt.tokens", -1),
    ("prompt.sigma", 0.0),
    ("prompt.later_factor", -1.0),
    ("memory.per_class", 0),
    ("heads.shrinkage", 1.1),
    ("heads.holdout", 1.0),
    ("ridge.width", -1),
    ("ridge.penalty", 0.0),
    ("gaussian.rank", 0),
    ("memory.per_class", 0),
    ("gaussian.weight", 1.0),
    ("drift.ridge", 0.0),
]


OUTSIDE_PEER = [
    *(("slca", name, 0.0) for name in ("align.epochs", "align.learning_rate")),
    *(("slca", name, -1.0) for name in ("align.weight_decay", "align.temperature", "align.decay")),
    ("slca", "align.decay", 1.1),
    ("slca", "align.batch_size", 0),
    *(("rsiat", name, -0.1) for name in ("train.align", "train.steer", "train.steer_apart")),
    *(("inflora", f"lora.{name}energy", value) for name in ("", "final_") for value in (0.0, 1.1)),
    ("rsiat", "train.steer_warmup", 1.0),
    ("rsiat", "train.steer_margin", 1.1),
    ("rsiat", "bottleneck.width", 0),
    *(("ddgr", f"guide.{name}", -1.0) for name in ("scale", "learning_rate")),
    *(("ddgr", f"guide.{name}", 0) for name in ("width", "stages")),
    ("guide", "guide.every", 0),
    ("jdcl", "jdcl.hidden", 0),
    *(("jdcl", f"jdcl.{name}", -0.1) for name in ("classification", "distillation", "soft_labels")),
    ("rsiat", "bottleneck.scale", 0.0),
]


@pytest.mark.parametrize(("method", "name", "value"), OUTSIDE_PEER)
def test_value_out_of_range_is_refused_by_name_for_a_peer(method, name, value):
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(with_value(name, value, method))
    assert str(caught.value).startswith(f"{name}={value!r}: must be ")


def test_blocks_of_a_bottleneck_are_those_of_the_network():
    with pytest.raises(ValueError, match="bottleneck.blocks='9': accepted are all, a range"):
        bridge.from_dict(with_value("bottleneck.blocks", "9", "rsiat"))
    with pytest.raises(ValueError, match="train.loss='gaussian': accepted are local, cosine"):
        bridge.from_dict(with_value("train.loss", "gaussian", "slca"))


@pytest.mark.parametrize(("name", "value"), OUTSIDE_CLASSIFIER)
def test_value_out_of_range_is_refused_by_name_for_a_classifier(name, value):
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(with_value(name, value, "fmlora"))
    message = str(caught.value)
    assert message.startswith(f"{name}={value!r}: must be ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rank.selector": "centred", "rank.candidates": (2, 12)},
            "rank.candidates=(2, 12): 12 exceeds lora.rank=10",
        ),
        (
            {"rank.selector": "literal", "rank.candidates": (4, 2)},
            "rank.candidates=(4, 2): must ascend",
        ),
        ({"rank.selector": "centered"}, "rank.selector='centered': accepted are centred, literal"),
        (
            {"rank.selector": "centred", "rank.final_temperature": 2.0},
            "rank.final_temperature=2.0: exceeds",
        ),
        ({"model.sha256": "abc"}, "model.sha256='abc': model.weights='random' reads no file"),
        *(
            ({"rank.selector": f"energy:{n}"}, f"rank.selector='energy:{n}': the number after the")
            for n in ("1.1", "0", "", "x", "nan")
        ),
        *(
            (
                {"rank.selector": f"holdout:{n}"},
                f"rank.selector='holdout:{n}': the number after the",
            )
            for n in ("1", "-0.1", "inf", "1e400")
        ),
        (
            {"rank.selector": "energy"},
            "rank.selector='energy': accepted are centred, literal, full",
        ),
        ({"rank.selector": "centred:1"}, "rank.selector='centred:1': accepted are centred"),
        ({"lora.capacity": 9}, "lora.capacity=9: is below lora.rank=10, the columns of the first"),
        ({"lora.capacity": 65}, "lora.capacity=65: exceeds the width 64"),
        ({"rank.selector": "fixed:11"}, "rank.selector='fixed:11': R must be 1 to lora.rank=10"),
        ({"lora.sites": ("q", "qkv")}, "lora.sites=('q', 'qkv'): accepted are one or more of q, k"),
        ({"lora.blocks": "4-6"}, "lora.blocks='4-6': accepted are all, a range"),
        ({"lora.rank": 65}, "lora.rank=65: exceeds the width 64"),
        ({"data.image_size": 18}, "data.image_size=18: must be a multiple of 4, the patch of"),
        ({"model.variant": "B/32"}, "data.image_size=16: must be a multiple of 32, the patch of"),
        ({"lora.sites": ()}, "lora.sites=(): accepted are one or more of q, k, v"),
        ({"lora.sites": ("q", "q")}, "lora.sites=('q', 'q'): accepted are one or more of q, k, v"),
        ({"model.variant": "H/14"}, "model.variant='H/14': accepted is SIZE/PATCH"),
        ({"model.variant": "B/0"}, "model.variant='B/0': accepted is SIZE/PATCH"),
        ({"model.variant": "B/" + "9" * 5000}, "model.variant='B/99999"),
        ({"model.layer_scale": 1}, "model.layer_scale=1: accepted are True, False"),
        ({"model.position_resize": "cubic"}, "model.position_resize='cubic': accepted are weights"),
        ({"stream.domain_order": "seed:1"}, "stream.domain_order='seed:1': read only with"),
        (
            {"memory.generator": "runs/g", "stream.scenario": "dil"},
            "memory.generator='runs/g': a generator knows classes and no domains",
        ),
        (
            {"memory.generator": "runs/g", "drift.correction": "none"},
            "memory.use='map': drift.correction='none' fits no map",
        ),
        (
            {"drift.images": "digits", "drift.correction": "none"},
            "drift.images='digits': drift.correction='none' fits no map",
        ),
        (
            {"memory.generator": "x", "memory.use": "statistics", "drift.images": "digits"},
            "drift.images='digits': memory.use='statistics' fits no map",
        ),
        ({"heads.fit": ("lda", "ncm")}, "heads.fit=('lda', 'ncm'): accepted are some of linear,"),
        ({"heads.fit": ("lda", "lda")}, "heads.fit=('lda', 'lda'): accepted are some of linear,"),
        ({"model.features": "layers"}, "model.features='layers': accepted are cls, cls+mean, and"),
        ({"model.features": "layers:0"}, "model.features='layers:0': accepted are cls, cls+mean"),
        ({"model.features": "layers:9"}, "model.features='layers:9': model.variant="),
    ],
)
def test_values_of_a_classifier_that_do_not_fit_each_other(changes, message):
    values = bridge.as_dict(bridge.freeze(small("fmlora")))
    for name, value in changes.items():
        set_value(values, name, value)
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(values)
    assert str(caught.value).startswith(message)


def test_a_generator_has_no_domains():
    with pytest.raises(ValueError, match="stream.scenario='dil': a generator learns new classes"):
        bridge.from_dict(with_value("stream.scenario", "dil"))
    with pytest.raises(ValueError, match=r"'stream\.domain_order' is read by no part"):
        bridge.from_dict(with_value("stream.domain_order", "natural"))


@pytest.mark.parametrize(
    ("selector", "want"),
    [
        ("centred", None),
        ("literal", None),
        ("holdout:0.02", None),
        ("full", ("fixed", 4)),
        ("fixed:3", ("fixed", 3)),
        ("energy:0.99", ("energy", 0.99)),
        ("energy:1", ("energy", 1.0)),
    ],
)
def test_only_a_rank_that_is_chosen_from_candidates_needs_them(selector, want):
    values = bridge.as_dict(bridge.freeze(small("fmlora")))
    values["lora"]["rank"] = 4
    values["rank"]["selector"] = selector
    if want is None:
        with pytest.raises(ValueError, match="6 exceeds lora.rank=4"):
            bridge.from_dict(values)
    else:
        assert settings.rank_selector(bridge.from_dict(values)) == want


@pytest.mark.parametrize(
    ("text", "blocks"), [("all", (0, 1, 2)), ("1-2", (1, 2)), ("2,0", (0, 2)), ("1", (1,))]
)
def test_blocks_are_named_in_three_ways(text, blocks):
    assert settings.vit_blocks(text, 3) == blocks


@pytest.mark.parametrize(("name", "value"), OUTSIDE)
def test_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(with_value(name, value))
    assert str(caught.value).startswith(f"{name}={value!r}: must be ")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "judge.metrics",
            ("fd", "fid"),
            "judge.metrics=('fd', 'fid'): accepted are some of fd, kd",
        ),
        ("judge.metrics", ("kd", "kd"), "judge.metrics=('kd', 'kd'): accepted are some of fd, kd"),
        *(
            ("judge.features", value, f"judge.features={value!r}: accepted are judge, vit:FILE, in")
            for value in ("dino", "vit:", "inception", "file:x", "")
        ),
        *(
            ("sample.grid", value, f"sample.grid={value!r}: accepted are uniform, cosine, power:K")
            for value in ("power", "power:", "power:0", "power:11", "power:1e1", "cosine:2", "")
        ),
    ],
)
def test_what_is_measured_of_samples_is_known(name, value, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        bridge.from_dict(with_value(name, value))
    assert bridge.from_dict(with_value("judge.metrics", ())).judge.metrics == ()


def test_the_nearest_size_that_patches_make_is_named():
    with pytest.raises(ValueError, match="the nearest is 20$"):
        bridge.from_dict(with_value("data.image_size", 19, "fmlora"))
    values = with_value("model.variant", "B/32", "fmlora")
    with pytest.raises(ValueError, match="the nearest is 32$"):
        bridge.from_dict(values)


NAMED = ("lora.sites", "heads.fit", "judge.metrics")


@pytest.mark.parametrize("method", settings.RUNS)
def test_every_number_has_a_range_that_its_default_is_in(method):
    tested = {name for name, _ in (*OUTSIDE, *OUTSIDE_CLASSIFIER)} | {"replay.images_per_class"}
    tested |= {name for _, name, _ in OUTSIDE_PEER}
    for name, field in bridge.keys(settings.RUNS[method]):
        accepts = field.metadata["range"]
        kind = typing.get_origin(field.type) or field.type
        if kind not in (int, float, tuple) or name in NAMED:  # checked as a whole
            assert accepts is None, f"{name} is no number"
            continue
        assert accepts.holds(field.default), f"{name}={field.default}"
        alike = name.replace("phase2.", "phase1."), name.replace("phase1.", "phase2.")
        assert set(alike) & tested, f"no test leaves the range of {name}"


@pytest.mark.parametrize(
    ("accepts", "words", "inside", "outside"),
    [
        (keys.at_least(1), "at least 1", (1, 2.5), (0, 0.99, math.nan)),
        (keys.at_least(0), "0 or more", (0, 1), (-1, math.nan)),
        (keys.above(0), "above 0", (1e-9, 3), (0, -1, math.nan)),
        (keys.between(0, 1), "above 0 and below 1", (0.5,), (0, 1, math.nan)),
        (keys.from_to(1, 4), "from 1 to 4", (1, 2, 4), (0, 5, math.nan)),
        (keys.from_to_below(0, 1), "at least 0 and below 1", (0, 0.9), (-0.1, 1, math.nan)),
        (keys.above_up_to(0, 1), "above 0 and at most 1", (0.1, 1), (0, 1.1, math.nan)),
        (
            keys.every(keys.at_least(1)),
            "one or more values, each at least 1",
            ((1,), (3, 2)),
            ((), (0,), (1, 0)),
        ),
        (
            keys.every(keys.at_least(1), empty=True),
            "() or values, each at least 1",
            ((), (1, 2)),
            ((0,), (1, 0)),
        ),
    ],
)
def test_ranges(accepts, words, inside, outside):
    assert accepts.words == words
    assert all(map(accepts.holds, inside)) and not any(map(accepts.holds, outside))


# What changes no result: where data is stored, how it is kept in memory, how work is cut.
FREE = {"name", "data.tfds_dir", "data.manual_dir", "data.memory_gib", "data.verify"}
FREE |= {f"runtime.{field.name}" for field in dataclasses.fields(settings.Runtime)}


@pytest.mark.parametrize("method", settings.RUNS)
def test_a_key_that_changes_no_result_says_so(method):
    expected = FREE | ({"sample.chunk"} if "sample" in small(method) else set())
    expected |= (
        {"adapter.strategy", "adapter.record_ranks"} if "adapter" in small(method) else set()
    )
    expected |= {"memory.generator"} if "memory" in small(method) else set()
    free = {n for n, field in bridge.keys(settings.RUNS[method]) if field.metadata["free"]}
    assert free == expected
    values = bridge.as_dict(bridge.freeze(small(method)))
    kept = {name for name, _ in flat(decisive(values))}
    assert kept == {name for name, _ in flat(values)} - expected
    assert values == bridge.as_dict(bridge.freeze(small(method))), "the given tree must not change"


def test_every_method_has_its_settings_class_and_a_class_serves_no_other():
    from flcl.methods import METHODS  # late: it loads JAX

    assert list(settings.RUNS) == list(METHODS)
    for method, cls in settings.RUNS.items():
        assert cls(method=method).method == method
        for other in set(settings.RUNS) - set(settings.methods_of(cls)):
            with pytest.raises(ValueError, match=f"method='{other}': {cls.__name__} accepts"):
                cls(method=other)


@pytest.mark.parametrize("cls", [settings.Run, settings.GeneratorRun, settings.ClassifierRun])
def test_what_several_classes_share_is_no_run(cls):
    with pytest.raises(ValueError, match="method='fmlora': .* accepts none"):
        cls(method="fmlora")


def test_a_method_has_only_keys_that_it_reads():
    keys_of = {m: dict(bridge.keys(cls)) for m, cls in settings.RUNS.items()}
    for method, lacks in {
        "class_mean": {"data.flip", "model.remat"},
        "linear_probe": {"model.remat", "train.learning_rate"},
        "vit_finetune": {"model.trunk_dtype"},
        "funlora": {"stream.domain_order"},
        "finetune": {"stream.domain_order"},
        "generative_replay": {"stream.domain_order"},
        "guide": {"stream.domain_order", "jdcl.hidden"},
        "ddgr": {"guide.every"},
    }.items():
        assert not lacks & set(keys_of[method])
    training = {name for name in keys_of["class_mean"] if name.startswith("train.")}
    assert training == {"train.eval_batch_size"}
    with pytest.raises(ValueError, match=r"'train\.epochs' is read by no part of method 'class_m"):
        bridge.from_dict(with_value("train.epochs", 99.0, "class_mean"))


def test_replay_count_is_checked():
    values = bridge.as_dict(bridge.freeze(small("generative_replay")))
    values["replay"]["images_per_class"] = -1
    with pytest.raises(ValueError, match=r"replay\.images_per_class=-1: must be 0 to 1000000"):
        bridge.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phase2.groups": 3}, "phase2.batch_size=128: must be a multiple of phase2.groups=3"),
        ({"phase1.steps": 10}, "phase1.warmup_steps=5000: exceeds phase1.steps=10"),
        ({"data.image_size": 12}, "data.image_size=12: must be a multiple of 8"),
        ({"model.attention": (16,)}, "model.attention=(16,): no level has size 16"),
        ({"model.head_channels": 48}, "model.head_channels=48: must divide the 256 channels"),
    ],
)
def test_values_that_do_not_fit_each_other(changes, message):
    values = bridge.as_dict(bridge.freeze(small()))
    for name, value in changes.items():
        set_value(values, name, value)
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(values)
    assert str(caught.value).startswith(message)


def test_a_narrow_level_attends_with_one_head():
    values = with_value(
        "model.width", 8
    )  # 16 channels at the attending level, 64 per head by default
    assert bridge.from_dict(values).model.width == 8


@pytest.mark.parametrize("method", settings.RUNS)
def test_every_key_has_one_comment(method):
    for name, field in bridge.keys(settings.RUNS[method]):
        comment = field.metadata.get("comment", "")
        assert comment, f"{name} has no comment"
        assert "\n" not in comment


def test_sizes_that_only_the_weights_file_knows_are_checked_when_it_is_read():
    values = bridge.as_dict(bridge.freeze(small("fmlora")))
    values["model"] |= {"variant": "weights", "layer_scale": None}
    values["lora"] |= {"rank": 65, "blocks": "99"}
    values["rank"]["selector"] = "full"
    values["data"]["image_size"] = 18
    with pytest.raises(ValueError, match="data.image_size=18: must be a multiple of 16"):
        bridge.from_dict(values)  # random weights have the sizes of B/16
    values["model"]["weights"] = "vit.npz"
    run = bridge.from_dict(values)
    assert run.model.layer_scale is None
    with pytest.raises(ValueError, match="model.variant='weights': the sizes are in .*'vit.npz'"):
        _ = run.model.sizes
    known = dataclasses.replace(run, model=dataclasses.replace(run.model, variant="Nano/4"))
    with pytest.raises(ValueError, match="data.image_size=18: must be a multiple of 4"):
        known.check()


@pytest.mark.parametrize(("word", "value"), [("True", True), ("false", False)])
def test_layer_scale_can_be_set_on_the_command_line(word, value):
    words = ["p", "--config=configs/fmlora_digits.py", f"--config.model.layer_scale={word}"]
    assert cli.parse(words, lambda _: None, True).run.model.layer_scale is value
    assert cli.parse(words[:2], lambda _: None, True).run.model.layer_scale is None
