"""`flcl.load_config`: the keys and words of the command line, with Python's values."""

from pathlib import Path

import pytest

import flcl
from flcl import cli, settings

CASES = {
    "phase1.steps": (300, "300"),
    "phase1.learning_rate": (1, "1"),
    "model.multipliers": ([1, 2, 2], "1,2,2"),
    "judge.flip": (True, "true"),
    "stream.tasks": ("2", "2"),
    "model.attention": ((), "()"),
}


def test_overrides_are_those_of_the_command_line():
    words = [f"--config.{key}={text}" for key, (_, text) in CASES.items()]
    argv = ["p", "--config=funlora_digits:family=power", *words]
    expected = cli.parse(argv, lambda _: None, config=True).run
    changes = {key: value for key, (value, _) in CASES.items()}
    assert flcl.load_config("funlora_digits:family=power", changes) == expected
    assert flcl.load_config("funlora_digits:family=power") != expected


def test_the_method_comes_first_and_a_path_may_be_one(root):
    path = root / "configs" / "funlora_digits.py"
    changes = {"replay.images_per_class": 5, "method": "generative_replay"}
    assert isinstance(flcl.load_config(Path(path), changes), settings.ReplayRun)


def test_a_config_of_two_runs():
    changes = {"generator.seed": 3, "classifier.train.epochs": 2}
    both = flcl.load_config("combined_digits", changes)
    assert isinstance(both, settings.Combined)
    assert (both.generator.seed, both.classifier.train.epochs) == (3, 2.0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"phase1.step": 3}, "config key 'phase1.step' is read by no part .*'phase1.steps'"),
        ({"phase1": {"steps": 3}}, "'phase1' is a group of keys, such as 'phase1.steps'"),
        ({"phase1.steps": "300"}, "phase1.steps='300': int is needed"),
        ({"phase1.steps": 2.5}, "phase1.steps=2.5: int is needed"),
        ({"phase1.steps": 0}, "phase1.steps=0: must be at least 1"),
        ({"phase1.steps": None}, "phase1.steps=None: int is needed"),
        ({"model": {}}, "'model' is a group of keys"),
        ({"name": {"a": 1}}, "config key 'name.a' is read by no part"),
        ({"method": "funlra"}, "method='funlra': accepted are funlora"),
        ({3: 3}, "config key '3' is read by no part"),
        ([("seed", 3)], r"overrides=\[\('seed', 3\)\]: a dictionary is needed"),
        ({"model.attention": (5,)}, "model.attention="),
    ],
)
def test_mistakes_are_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        flcl.load_config("funlora_digits", overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [3, None, b"funlora_digits"])
def test_a_config_is_a_name_or_a_path(config):
    with pytest.raises(ValueError, match="a name such as 'funlora_digits' or the path of a file"):
        flcl.load_config(config)


def test_what_the_file_gave_by_itself_is_told_with_its_name(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from flcl.settings import bridge\ndef get_config(arg):\n"
        "    c = bridge.defaults('finetune')\n    c.seed = -1\n    c.model.attention = ()\n"
        "    return c\n"
    )
    with pytest.raises(ValueError, match=r"--config=.*mine.py': seed=-1: must be 0 or more"):
        flcl.load_config(file)
    assert flcl.load_config(file, {"seed": 1}).seed == 1
