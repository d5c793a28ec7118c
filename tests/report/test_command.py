"""The command of the page is one that can be pasted: parsing it gives the settings of the run."""

import shlex

import pytest
from absl import flags

from flcl import cli, settings
from flcl.report import command
from flcl.settings import bridge

CHANGED = {
    "funlora": {
        "name": 'it\'s a $run, with "quotes"',
        "seed": 7,
        "stream.tasks": "4,2,2,2",
        "model.multipliers": (1,),
        "model.attention": (),
        "judge.flip": False,
        "phase1.learning_rate": 3e-5,
    },
    "fmlora": {
        "data.image_size": 32,
        "lora.sites": ("q", "k", "v"),
        "rank.candidates": (1, 2),
        "lora.rank": 2,
        "data.channels": 3,
        "stream.joint": True,
    },
}


def parsed(text: str) -> settings.Run:
    def define(values: flags.FlagValues) -> None:
        flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)

    package, program, *words = shlex.split(text)
    assert (package, program) == ("flcl", "train")
    return cli.parse([program, *words], define, config=True).run


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch, root):
    monkeypatch.chdir(root)


@pytest.mark.parametrize("method", CHANGED)
def test_the_command_gives_the_settings_of_the_run(method):
    config = bridge.defaults(method)
    config.update_from_flattened_dict(CHANGED[method])
    run = bridge.freeze(config)
    stored = bridge.as_dict(run)
    assert {change.key for change in command.changes(stored)} == set(CHANGED[method])
    assert parsed(command.command(stored)) == run


@pytest.mark.parametrize("method", settings.RUNS)
def test_defaults_need_no_key(method):
    run = bridge.run_class(method)(method=method)
    assert command.changes(bridge.as_dict(run)) == []
    text = f"flcl train --config=defaults:{method} --workdir=runs/new"
    assert command.command(bridge.as_dict(run), "runs/new") == text


def test_keys_of_older_runs_are_not_in_the_command():
    config = bridge.as_dict(settings.FunLoRARun(method="funlora"))
    config["data"] = {"source": "fashion16", "cache": 3}  # few keys, and one that is gone
    assert command.changes(config) == [command.Change("data.source", "fashion16", "digits")]
