"""Configs become frozen settings, and every mistake in one is named."""

import dataclasses
import json
import typing

import pytest

from flcl import hints, settings
from flcl.settings import bridge, checks


def small(method: str = "funlora"):
    """A valid config: the defaults, with attention where the default image size has it."""
    edited = bridge.defaults(method)
    if issubclass(settings.RUNS[method], settings.GeneratorRun):
        edited.model.attention = (4,)
    else:
        edited.data.image_size, edited.model.variant = 16, "Nano/4"
    return edited


@pytest.mark.parametrize("method", settings.RUNS)
def test_defaults_freeze_to_the_class_of_the_method(method):
    run = bridge.freeze(small(method))
    assert type(run) is settings.RUNS[method]
    assert run.method == method
    if isinstance(run, settings.GeneratorRun):
        assert run.model == dataclasses.replace(settings.UNet(), attention=(4,))
    else:
        assert run.model == settings.ViT(variant="Nano/4")
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.seed = 1


def test_frozen_settings_do_not_follow_later_edits():
    edited = small()
    run = bridge.freeze(edited)
    edited.phase1.steps = 7
    assert run.phase1.steps == settings.Phase().steps


@pytest.mark.parametrize("method", settings.RUNS)
def test_json_round_trip(method):
    edited = small(method)
    if "phase2" in edited:
        edited.model.multipliers = (1, 2, 3, 4)
        edited.phase2.learning_rate = 1 / 3
    else:
        edited.train.learning_rate = 1 / 3
    edited.name = 'quotes " and ünicode'
    run = bridge.freeze(edited)
    text = json.dumps(bridge.as_dict(run))
    assert bridge.from_dict(json.loads(text)) == run
    assert bridge.as_dict(bridge.from_dict(json.loads(text))) == bridge.as_dict(run)


def test_differing_keys_names_each_change_with_both_values():
    old, new = small(), small()
    new.phase2.steps = 3
    new.adapter.family = "shift"
    lines = bridge.differing_keys(
        bridge.as_dict(bridge.freeze(old)), bridge.as_dict(bridge.freeze(small()))
    )
    assert lines == []
    new.phase2.warmup_steps = 0
    lines = bridge.differing_keys(
        bridge.as_dict(bridge.freeze(old)), bridge.as_dict(bridge.freeze(new))
    )
    assert lines == [
        "adapter.family: 'cosine_learnable' -> 'shift'",
        "phase2.steps: 100000 -> 3",
        "phase2.warmup_steps: 5000 -> 0",
    ]


def test_differing_keys_sees_keys_of_one_side_only():
    assert bridge.differing_keys({"a": {"b": 1}}, {"a": {}}) == ["a.b: 1 -> '(absent)'"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("model.widht", "model.width"),
        ("stream.task", "stream.tasks"),
        ("phase1.learnig_rate", "phase1.learning_rate"),
        ("phase.dropout", "phase[12].dropout"),
        ("learning_rate", "[a-z0-9]+.learning_rate"),
        ("sed", "seed"),
    ],
)
def test_unknown_key_gets_a_suggestion(wrong, right):
    values = bridge.as_dict(bridge.freeze(small()))
    _set(values, wrong, 1)
    with pytest.raises(ValueError, match=f"'{wrong}' is read by no part .* Did you mean '{right}'"):
        bridge.from_dict(values)


def test_key_of_another_method_says_whose_it_is():
    edited = small("finetune")
    edited.adapter = bridge.defaults("funlora").adapter
    with pytest.raises(ValueError, match=r"'adapter\.family' .* belongs to method 'funlora'"):
        bridge.freeze(edited)


def test_nothing_near_gives_no_suggestion():
    assert hints.did_you_mean("xyzzy", ["phase1.steps", "seed"]) == ""


def test_missing_key_is_named():
    edited = small()
    del edited.phase2["steps"]
    with pytest.raises(ValueError, match=r"'phase2\.steps' is missing"):
        bridge.freeze(edited)


def test_missing_group_is_named():
    edited = small()
    del edited["judge"]
    with pytest.raises(ValueError, match="'judge' is missing"):
        bridge.freeze(edited)


def test_value_in_place_of_a_group():
    values = bridge.as_dict(bridge.freeze(small()))
    values["judge"] = 3
    with pytest.raises(ValueError, match=r"'judge' is a group of keys, such as 'judge\.width'"):
        bridge.from_dict(values)


def test_unknown_method_lists_all():
    values = bridge.as_dict(bridge.freeze(small()))
    values["method"] = "funlra"
    with pytest.raises(ValueError, match="method='funlra': accepted are funlora, finetune"):
        bridge.from_dict(values)
    with pytest.raises(ValueError, match="method='x'"):
        bridge.defaults("x")


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("seed", "0", "int is needed"),
        ("seed", 1.0, "int is needed"),
        ("seed", True, "int is needed"),
        ("data.flip", 1, "bool is needed"),
        ("data.channels", 2, "accepted are 1, 3"),
        ("data.channels", True, "accepted are 1, 3"),
        ("sample.solver", "rk4", "accepted are euler, midpoint, heun, dopri5"),
        ("phase1.learning_rate", "1e-3", "float is needed"),
        ("model.multipliers", 2, "a tuple of int is needed"),
        ("model.multipliers", [1, 2.5], "a tuple of int is needed"),
        ("model.multipliers", "1,2", "a tuple of int is needed"),
        ("name", 3, "str is needed"),
    ],
)
def test_wrong_type_names_key_value_and_what_is_accepted(name, value, accepted):
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(_with(name, value))
    assert str(caught.value).startswith(f"{name}={value!r}: ")
    assert accepted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_int_is_a_float_and_a_list_is_a_tuple():
    run = bridge.from_dict(_with("phase1.learning_rate", 1))
    assert type(run.phase1.learning_rate) is float
    run = bridge.from_dict(_with("model.multipliers", [1, 2]))
    assert run.model.multipliers == (1, 2)


# One value outside the accepted range for each key that has one.
OUTSIDE = [
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
    ("sample.chunk", 0),
    ("sample.rtol", 0.0),
    ("sample.atol", -1.0),
    ("judge.width", 0),
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
    ("data.train_per_class", -1),
    ("data.test_per_class", -1),
]

OUTSIDE_CLASSIFIER = [
    ("model.layer_norm_eps", 0.0),
    ("train.epochs", 0.0),
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
]


@pytest.mark.parametrize(("name", "value"), OUTSIDE_CLASSIFIER)
def test_value_out_of_range_is_refused_by_name_for_a_classifier(name, value):
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(_with(name, value, "fmlora"))
    message = str(caught.value)
    assert message.startswith(f"{name}={value!r}: must be ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank.candidates": (2, 12)}, "rank.candidates=(2, 12): 12 exceeds lora.rank=10"),
        ({"rank.candidates": (4, 2)}, "rank.candidates=(4, 2): must ascend"),
        ({"rank.selector": "centered"}, "rank.selector='centered': accepted are centred, literal"),
        ({"rank.final_temperature": 2.0}, "rank.final_temperature=2.0: exceeds"),
        ({"model.sha256": "abc"}, "model.sha256='abc': model.weights='random' reads no file"),
        ({"rank.selector": "fixed:11"}, "rank.selector='fixed:11': R must be 1 to lora.rank=10"),
        ({"lora.sites": ("q", "qkv")}, "lora.sites=('q', 'qkv'): accepted are one or more of q, k"),
        ({"lora.blocks": "4-6"}, "lora.blocks='4-6': accepted are all, a range"),
        ({"lora.rank": 65}, "lora.rank=65: exceeds the width 64"),
        ({"data.image_size": 18}, "data.image_size=18: must be a multiple of 4, the patch of"),
        ({"model.variant": "H/14"}, "model.variant='H/14': accepted is SIZE/PATCH"),
        ({"stream.domain_order": "seed:1"}, "stream.domain_order='seed:1': read only with"),
    ],
)
def test_values_of_a_classifier_that_do_not_fit_each_other(changes, message):
    values = bridge.as_dict(bridge.freeze(small("fmlora")))
    for name, value in changes.items():
        _set(values, name, value)
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(values)
    assert str(caught.value).startswith(message)


def test_a_generator_has_no_domains_and_a_trunk_that_trains_is_float32():
    with pytest.raises(ValueError, match="stream.scenario='dil': a generator learns new classes"):
        bridge.from_dict(_with("stream.scenario", "dil"))
    with pytest.raises(ValueError, match="a trunk that trains is stored in float32"):
        bridge.from_dict(_with("model.trunk_dtype", "bfloat16", "vit_finetune"))


@pytest.mark.parametrize(("selector", "rank"), [("centred", None), ("full", 4), ("fixed:3", 3)])
def test_a_rank_that_is_not_chosen_needs_no_candidates(selector, rank):
    values = bridge.as_dict(bridge.freeze(small("fmlora")))
    values["lora"]["rank"] = 4
    values["rank"]["selector"] = selector
    if rank is None:
        with pytest.raises(ValueError, match="6 exceeds lora.rank=4"):
            bridge.from_dict(values)
    else:
        assert checks.fixed_rank(bridge.from_dict(values)) == rank


@pytest.mark.parametrize(
    ("text", "blocks"), [("all", (0, 1, 2)), ("1-2", (1, 2)), ("2,0", (0, 2)), ("1", (1,))]
)
def test_blocks_are_named_in_three_ways(text, blocks):
    assert checks.vit_blocks(text, 3) == blocks


@pytest.mark.parametrize(("name", "value"), OUTSIDE)
def test_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(_with(name, value))
    assert str(caught.value).startswith(f"{name}={value!r}: must be ")


def test_every_number_has_a_range_or_a_reason_not_to():
    free = {"seed", "lora.sites"}  # any integer is a seed; sites are names, checked above
    known = {name for name, _ in (*OUTSIDE, *OUTSIDE_CLASSIFIER)} | {"replay.images_per_class"}
    for cls in settings.RUNS.values():
        for name, field in bridge.keys(cls):
            kind = typing.get_origin(field.type) or field.type
            if kind in (int, float, tuple) and name not in free:
                alike = name.replace("phase2.", "phase1."), name.replace("phase1.", "phase2.")
                assert name in known or set(alike) & known, f"{name} accepts anything"


def test_replay_count_is_checked():
    values = bridge.as_dict(bridge.freeze(small("generative_replay")))
    values["replay"]["images_per_class"] = -1
    with pytest.raises(ValueError, match=r"replay\.images_per_class=-1: must be 0 or more"):
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
        _set(values, name, value)
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(values)
    assert str(caught.value).startswith(message)


def test_a_narrow_level_attends_with_one_head():
    values = _with("model.width", 8)  # 16 channels at the attending level, 64 per head by default
    assert checks.check(bridge.from_dict(values)).model.width == 8


def test_switch_stays_among_generators_or_classifiers():
    with pytest.raises(ValueError, match="'finetune': cannot be taken over from 'fmlora'.*vit_fin"):
        bridge.switch(bridge.defaults("fmlora"), "finetune")
    with pytest.raises(ValueError, match="'sd_lora': cannot be taken over from 'funlora'.*, finet"):
        bridge.switch(bridge.defaults("funlora"), "sd_lora")


def test_switch_keeps_shared_keys_and_drops_the_others():
    edited = small()
    edited.phase2.steps = 10_000
    edited.adapter.family = "shift"
    switched = bridge.switch(edited, "generative_replay")
    run = bridge.freeze(switched)
    assert run.method == "generative_replay"
    assert run.phase2.steps == 10_000
    assert run.model.attention == (4,)
    assert run.replay == settings.Replay()
    assert "adapter" not in switched
    back = bridge.freeze(bridge.switch(switched, "funlora"))
    assert back.adapter == settings.Adapter()
    assert edited.method == "funlora", "the given config must not change"


@pytest.mark.parametrize("method", settings.RUNS)
def test_every_key_has_one_comment(method):
    for name, field in bridge.keys(settings.RUNS[method]):
        comment = field.metadata.get("comment", "")
        assert comment, f"{name} has no comment"
        assert "\n" not in comment


def _with(name: str, value, method: str = "funlora") -> dict:
    values = bridge.as_dict(bridge.freeze(small(method)))
    _set(values, name, value)
    return values


def _set(values: dict, name: str, value) -> None:
    *groups, leaf = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[leaf] = value
