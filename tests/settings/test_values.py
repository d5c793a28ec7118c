"""No value of a config is too strange for one line that names its key."""

import copy
import math
import time

import pytest
from edited import set_value, small, with_value

from flcl import settings
from flcl.settings import bridge, keys

NUMBERS = [math.nan, math.inf, -math.inf, 1e308, 1e-320, -1, 10**30, 10**400, 10**5000]
TEXTS = ["", "x" * 100_000, "\udcff", *(f"{form}{'9' * 5000}" for form in ("", "seed:", "B/"))]
TEXTS += ["per:" + "9" * 5000, "fixed:" + "9" * 5000, "fixed:²", "B/²", "0-" + "9" * 12, "(q,v"]
OTHERS = [True, None, [], [1], [math.nan], [10**30], [1] * 1000, {}, {"a": 1}, b"x", object()]
FREE_TEXT = {"name", "data.source", "data.tfds_dir", "data.manual_dir", "stream.tasks"}
FREE_TEXT |= {"stream.class_order", "stream.domain_order", "model.weights", "adapter.layers"}
FREE_TEXT |= {"runtime.compile_cache", "model.sha256"}
FREE_TEXT |= {"drift.images", "drift.sha256", "memory.generator", "memory.sha256"}


# Each key is tried with the first method that has it.
FIRST = {
    name: method
    for method in reversed(settings.RUNS)
    for name, _ in bridge.keys(settings.RUNS[method])
}


@pytest.mark.parametrize("method", sorted(set(FIRST.values())))
def test_every_key_takes_a_value_or_refuses_it_in_one_short_line(method):
    started = time.process_time()
    usual = bridge.as_dict(bridge.freeze(small(method)))
    fields = dict(bridge.keys(settings.RUNS[method]))
    for name, field in fields.items():
        if FIRST[name] != method:
            continue
        for value in (*NUMBERS, *TEXTS, *OTHERS):
            try:
                values = copy.deepcopy(usual)
                set_value(values, name, value)
                run = bridge.from_dict(values)
            except ValueError as error:
                text = str(error)
                assert "\n" not in text and len(text) < 700, (name, text)
                # A key that fits no longer may be named by the one that it has to fit.
                assert name in text or name.partition(".")[0] in text, (name, text)
                continue
            kept = bridge.value(run, name)
            if isinstance(kept, float):
                assert math.isfinite(kept) and abs(kept) <= keys.FLOAT_MOST, name
            elif type(kept) is int:
                assert kept <= max(keys.INT_MOST, 2**32 - 1), name
            elif isinstance(kept, str) and value in TEXTS:
                assert name in FREE_TEXT, (name, field.type)
    # Nothing of the size of a value was made.
    assert time.process_time() - started < 60


@pytest.mark.parametrize(
    ("method", "name", "value", "needed"),
    [
        ("funlora", "stream.capacity", 10**12, "must be 0 to 1000000"),
        ("funlora", "phase1.steps", 10**15, "must be at least 1, and at most 2147483647"),
        ("funlora", "data.image_size", 10**6, "must be 1 to 8192"),
        ("funlora", "judge.epochs", math.inf, "must be above 0 and at most 1000000"),
        ("funlora", "phase1.learning_rate", 1e308, "must be above 0, and at most 3.4e+38"),
        ("funlora", "adapter.sigma", 1e-320, "and not between 0 and 1.2e-38 (float32)"),
        ("funlora", "phase1.learning_rate", 10**400, "float is needed"),
        ("funlora", "model.multipliers", (1,) * 33, "one or more values, each 1 to 1024"),
        ("funlora", "judge.crop", 9, "exceeds data.image_size=8"),
        ("fmlora", "lora.blocks", "0-999999999999", "accepted are all, a range such as 0-5"),
        ("fmlora", "name", "\udcff", "set LC_ALL=C.UTF-8"),
    ],
)
def test_what_is_needed_is_said(method, name, value, needed):
    with pytest.raises(ValueError) as caught:
        bridge.from_dict(with_value(name, value, method))
    assert str(caught.value).startswith(f"{name}=") and needed in str(caught.value)


def test_large_values_that_have_a_meaning_are_accepted():
    assert bridge.from_dict(with_value("seed", 2**32 - 1)).seed == 2**32 - 1
    assert bridge.from_dict(with_value("phase1.steps", 2**31 - 1)).phase1.steps == 2**31 - 1
    assert bridge.from_dict(with_value("data.memory_gib", 10**30)).data.memory_gib == 1e30


@pytest.mark.parametrize("method", [[1], {"a": 1}, {}, 3, None])
def test_a_method_that_is_no_text(method):
    values = bridge.as_dict(bridge.freeze(small())) | {"method": method}
    with pytest.raises(ValueError, match=r"^method=.*: accepted are funlora|^config key 'method"):
        bridge.from_dict(values)


@pytest.mark.parametrize(
    ("given", "sites"),
    [
        (("q,v",), ("q", "v")),
        (("(q,v)",), ("q", "v")),
        (("[q, v]",), ("q", "v")),
        (("(q,)",), ("q",)),
        (("('q', \"v\")",), ("q", "v")),
        (["q", "v"], ("q", "v")),
    ],
)
def test_ways_to_write_words(given, sites):
    assert bridge.from_dict(with_value("lora.sites", given, "fmlora")).lora.sites == sites


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("all", (0, 1, 2, 3)),
        ("1-2", (1, 2)),
        (" 3, 0", (0, 3)),
        ("2", (2,)),
        *((text, None) for text in ("", "2-1", "0-4", "4", "1,1", "1;2", "-1", "a", "٣", "1-2-3")),
        ("0-999999999", None),
        ("9" * 5000, None),
    ],
)
def test_selected_numbers(text, numbers):
    assert keys.selected(text, 4) == numbers
