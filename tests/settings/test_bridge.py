"""Configs become frozen settings, and every mistake in one is named."""

import dataclasses
import json

import pytest
from edited import set_value, small, with_value

from flcl import hints, settings
from flcl.runs.saved.differences import differing_keys
from flcl.settings import bridge


@pytest.mark.parametrize("method", settings.RUNS)
def test_defaults_freeze_to_the_class_of_the_method(method):
    run = bridge.freeze(small(method))
    assert type(run) is settings.RUNS[method]
    assert run.method == method
    if isinstance(run, settings.GeneratorRun):
        model = settings.RUNS[method](method=method).model
        assert run.model == dataclasses.replace(model, attention=(4,))
    else:
        expected = settings.RUNS[method](method=method).model
        assert run.model == dataclasses.replace(expected, variant="Nano/4")
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
        edited.model.layer_norm_eps = 1 / 3
    edited.name = 'quotes " and ünicode'
    run = bridge.freeze(edited)
    text = json.dumps(bridge.as_dict(run))
    assert bridge.from_dict(json.loads(text)) == run
    assert bridge.as_dict(bridge.from_dict(json.loads(text))) == bridge.as_dict(run)


def test_differing_keys_names_each_change_with_both_values():
    old, new = small(), small()
    new.phase2.steps = 3
    new.adapter.family = "shift"
    lines = differing_keys(
        bridge.as_dict(bridge.freeze(old)), bridge.as_dict(bridge.freeze(small()))
    )
    assert lines == []
    new.phase2.warmup_steps = 0
    lines = differing_keys(bridge.as_dict(bridge.freeze(old)), bridge.as_dict(bridge.freeze(new)))
    assert lines == [
        "adapter.family: 'cosine_learnable' -> 'shift'",
        "phase2.steps: 100000 -> 3",
        "phase2.warmup_steps: 5000 -> 0",
    ]


def test_differing_keys_sees_keys_of_one_side_only():
    assert differing_keys({"a": {"b": 1}}, {"a": {}}) == ["a.b: 1 -> '(absent)'"]


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
    set_value(values, wrong, 1)
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
        ("stream.scenario", "til", "accepted are cil, dil"),
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
        bridge.from_dict(with_value(name, value))
    assert str(caught.value).startswith(f"{name}={value!r}: ")
    assert accepted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_int_is_a_float_and_a_list_is_a_tuple():
    run = bridge.from_dict(with_value("phase1.learning_rate", 1))
    assert type(run.phase1.learning_rate) is float
    run = bridge.from_dict(with_value("model.multipliers", [1, 2]))
    assert run.model.multipliers == (1, 2)


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
