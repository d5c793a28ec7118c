"""The configs of two runs: every argument works, and each key can be reached."""

import ast
import re
from pathlib import Path

import pytest

from flcl import cli, settings
from flcl.settings import bridge

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("combined_digits", "combined_fashion16")


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def load(name: str, *words: str) -> settings.Combined:
    spec = f"--config=configs/{name}.py"
    return cli.parse(["p", spec + words[0], *words[1:]], lambda _: None, True).run


def test_the_promised_configs_are_there():
    assert sorted(p.stem for p in (ROOT / "configs").glob("combined_*.py")) == [*NAMES]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", ["", ":smoke", ":use=map", ":use=statistics", ":smoke,use=map"])
def test_every_argument_freezes(name, arg):
    both = load(name, arg)
    assert both.generator.stream.tasks == both.classifier.stream.tasks
    assert both.generator.data.source == both.classifier.data.source
    assert both.classifier.memory.use == ("statistics" if "statistics" in arg else "map")
    assert (both.generator.phase1.steps < 10) == ("smoke" in arg)
    assert bridge.from_dict(bridge.as_dict(both)) == both


@pytest.mark.parametrize("name", NAMES)
def test_docstring_shows_a_line_that_runs_this_config(name):
    doc = ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text()))
    assert re.findall(r"^    flcl (\w+) --config=(\w+)", doc, re.M) == [("train", name)]
    for word in re.findall(r"`(--config\.[^`]+)`", doc):
        load(name, "", word)


def test_keys_of_both_runs_and_another_method():
    words = ["--config.generator.model.width=32", "--config.classifier.drift.ridge=1"]
    both = load("combined_digits", "", *words, "--config.classifier.method=sd_lora")
    assert both.generator.model.width == 32 and both.classifier.drift.ridge == 1
    assert both.classifier.method == "sd_lora"
    assert both.with_generator("runs/x").memory.generator == "runs/x"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("method=fmlora", "config key 'method': this config has two runs; write generator.method"),
        ("model.width=3", "key 'model.width': this config has two runs; write generator.model.wi"),
        ("generator.model.widht=3", "Did you mean 'generator.model.width'?"),
        ("classifier.memory.generator=x", "classifier.memory.generator='x': the generator is tra"),
        ("classifier.drift.correction=none", "classifier.memory.use='map': drift.correction='no"),
        ("classifier.lora.rank=999", "classifier.lora.rank=999: exceeds"),
        ("classifier.train.epochs=x", "--config.classifier.train.epochs=x: float is needed"),
        ("classifier.method=frozen", "classifier.method='frozen': needed is a classifier that ch"),
        ("generator.method=finetune", "generator.method='finetune': needed is funlora"),
        ("generator.stream.scenario=dil", "generator.stream.scenario='dil': a generator learns"),
    ],
)
def test_mistakes_name_the_run(word, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load("combined_digits", "", f"--config.{word}")
    assert "\n" not in str(caught.value)


def test_help_lists_the_keys_of_both(capsys):
    words = ["p", "--config=configs/combined_digits.py", "--help"]
    assert cli.main(lambda _: None, doc="", define=lambda _: None, config=True, argv=words) == 0
    shown = capsys.readouterr().out
    assert "--config.generator.model.width=16" in shown
    assert "--config.classifier.memory.per_class=100" in shown
