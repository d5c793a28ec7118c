"""Settings of runs of every format are read; no key comes or goes without a word in the tables.

`formats/format_N.json` holds the `config.json` of every method by format N, all keys with their
defaults. That of an older format never changes.
"""

import hashlib
import json
from pathlib import Path

import pytest
from edited import flat, small

from flcl import settings
from flcl.settings import bridge, formats

STORED = Path(__file__).parent / "formats"
HELP = (
    "Keys were added or removed. Where a version with the newest format is in use, take the next "
    "number. Write one line into ADDED or REMOVED of flcl/settings/formats.py, and the new keys "
    "into tests/settings/formats: the newest file there is json.dumps of {method: "
    "formats.to_store(settings.RUNS[method](method=method))}."
)


def configs(number: int) -> dict[str, dict]:
    """The `config.json` of each method by a format, with all defaults."""
    return json.loads((STORED / f"format_{number}.json").read_text())


def names(values: dict) -> set[str]:
    return {name for name, _ in flat(values)}


def write(workdir: Path, values) -> Path:
    (workdir / "config.json").write_text(json.dumps(values))
    return workdir


def test_every_format_has_a_list_of_its_keys():
    assert {path.name for path in STORED.iterdir()} == {
        f"format_{number}.json" for number in range(1, formats.FORMAT + 1)
    }


@pytest.mark.parametrize("method", settings.RUNS)
def test_the_newest_list_has_the_keys_of_today(method):
    now = {"format", *(name for name, _ in bridge.keys(settings.RUNS[method]))}
    assert names(configs(formats.FORMAT)[method]) == now, HELP


@pytest.mark.parametrize("number", range(1, formats.FORMAT + 1))
def test_keys_of_every_format_become_those_of_today(number):
    for method, stored in configs(number).items():
        before = json.dumps(stored)
        upgraded = formats.upgraded(stored)
        now = {name for name, _ in bridge.keys(settings.RUNS[method])}
        assert names(upgraded) == now, HELP
        kept = dict(flat(stored))
        added = {name for of in formats.ADDED.values() for name in of}
        assert all(kept[name] == value for name, value in flat(upgraded) if name not in added)
        assert json.dumps(stored) == before, "the given values must not change"


@pytest.mark.parametrize("method", settings.RUNS)
def test_what_is_stored_is_read_again(method, tmp_path):
    run = bridge.freeze(small(method))
    stored = formats.to_store(run)
    assert stored["format"] == formats.FORMAT
    assert bridge.from_dict(formats.read(write(tmp_path, stored))) == run


def test_an_added_key_has_the_value_that_was_implicit(monkeypatch, tmp_path):
    """As if the clip norm, the judge and the flip came with format 3, and one more key with 4."""
    added = {"train.clip_norm": 7.0, "judge.width": 5, "judge.crop": 2, "data.flip": True}
    monkeypatch.setattr(formats, "ADDED", {2: {}, 3: added, 4: {"phase1.clip_norm": 9.0}})
    monkeypatch.setattr(formats, "FORMAT", 4)
    older = formats.to_store(bridge.freeze(small())) | {"format": 2}
    del older["judge"], older["data"]["flip"], older["phase1"]["clip_norm"]
    values = formats.read(write(tmp_path, older))
    assert values["judge"] == {"width": 5, "crop": 2}
    assert values["data"]["flip"] is True and values["phase1"]["clip_norm"] == 9.0
    assert "train" not in values, "a generator has no such key"
    older = formats.to_store(bridge.freeze(small())) | {"format": 3}
    assert formats.read(write(tmp_path, older))["judge"]["width"] == settings.Judge().width
    older["phase1"].pop("clip_norm")
    assert formats.read(write(tmp_path, older))["phase1"]["clip_norm"] == 9.0


def test_a_removed_key_is_dropped_with_its_group(monkeypatch, tmp_path):
    removed = {"flow.time": ("funlora",), "flow.coupling": ("funlora",), "seed": ("finetune",)}
    monkeypatch.setattr(formats, "REMOVED", {3: removed})
    monkeypatch.setattr(formats, "FORMAT", 3)
    stored = formats.to_store(bridge.freeze(small())) | {"format": 2}
    values = formats.read(write(tmp_path, stored))
    assert "flow" not in values and values["seed"] == 0
    assert formats.read(write(tmp_path, stored | {"format": 3}))["flow"]["time"] == "uniform"


def test_a_class_mean_of_format_1_forgets_the_training_that_it_never_had(tmp_path):
    stored = configs(1)["class_mean"]
    stored["train"]["epochs"] = 99.0
    stored["data"]["image_size"] = 16
    run = bridge.from_dict(formats.read(write(tmp_path, stored)))
    assert run.train == settings.Testing()
    sizes = {"variant": "B/16", "layer_scale": False, "position_resize": "bicubic"}
    assert run.model == settings.FrozenViT(**sizes)


def test_a_newer_format_is_refused_in_one_line(tmp_path):
    stored = formats.to_store(bridge.freeze(small())) | {"format": formats.FORMAT + 1, "new": 1}
    with pytest.raises(ValueError) as caught:
        formats.read(write(tmp_path, stored))
    assert str(caught.value) == (
        f"workdir {tmp_path} was made by a newer flcl (format {formats.FORMAT + 1}; this one reads "
        f"up to {formats.FORMAT}): update flcl"
    )


@pytest.mark.parametrize("number", ["2", 2.0, True, None, 0, -1, [2]])
def test_a_format_that_is_no_number_is_refused_in_one_line(number, tmp_path):
    stored = formats.to_store(bridge.freeze(small())) | {"format": number}
    with pytest.raises(ValueError) as caught:
        formats.read(write(tmp_path, stored))
    assert str(caught.value).startswith(f"workdir {tmp_path} has the format {number!r}")
    assert "\n" not in str(caught.value)


def test_a_folder_without_settings(tmp_path):
    assert formats.read(tmp_path) is None
    with pytest.raises(ValueError, match="config.json has no settings of a run"):
        formats.read(write(tmp_path, [1]))


@pytest.mark.parametrize(
    ("number", "digest"),
    [
        (2, "e88c36f684d3f96b"),
        (3, "4fa8a55fabd702f5"),
        (4, "44922d32b9111390"),
        (5, "b0fe4f063230a389"),
        (6, "42763f98df1d1a6e"),
    ],
)
def test_what_a_published_format_means_never_changes(number, digest):
    """Runs of users have these formats: another value would make another run of each of them."""
    meaning = json.dumps([formats.ADDED[number], formats.REMOVED.get(number)], sort_keys=True)
    assert hashlib.sha256(meaning.encode()).hexdigest()[:16] == digest
