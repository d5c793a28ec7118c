"""The command line: every key can be overridden, and every mistake is one clear line."""

import functools
import re
import subprocess
import sys
import typing

import pytest
from absl import flags

from flcl import cli, settings, stopping
from flcl.runs.saved.differences import differing_keys
from flcl.settings import bridge

CONFIG = "configs/funlora_digits.py"
CLASSIFIER = "configs/fmlora_digits.py"

# Values that fit the digits config where twice or half of the value would not.
FITTING = {
    "data.image_size": "32",
    "sample.grid": "power:2",
    "judge.stages": "2",
    "guide.stages": "2",
    "judge.metrics": "fd,copies",
    "judge.features": "vit:tiny",
    "model.multipliers": "1,2,2",
    "model.attention": "4",
    "model.head_channels": "4",
    "adapter.layers": "0,3",
    "model.variant": "Ti/4",
    "lora.sites": "k,fc1",
    "lora.blocks": "0-2",
    "rank.selector": "literal",
    "rank.candidates": "2,4",
    "model.features": "cls+mean",
    "heads.fit": "lda,gaussian",
    "lora.capacity": "20",
    "bottleneck.blocks": "0-2",
}
# Keys that need others; in SLCA, features follow no map.
_IMAGES = "--config.drift.images=digits"
_SAME = "--config.train.min_crop=1.0"
_LAST = f"{_SAME} --config.lora.blocks=3-5"
BESIDE = {
    **{
        (name, "model.keep_lower"): _LAST
        for name in ("fmlora", "lora_sequential", "sd_lora", "first_session", "inflora")
    },
    ("linear_probe", "model.keep_lower"): _SAME,
    ("rsiat", "model.keep_lower"): f"{_SAME} --config.bottleneck.blocks=3-5",
    **{(n, "drift.sha256"): _IMAGES for n, c in settings.RUNS.items() if hasattr(c, "fits_map")},
    ("slca", "drift.sha256"): f"{_IMAGES} --config.drift.correction=shift",
    ("funlora", "model.sha256"): "--config.model.weights=trunk.safetensors",
    ("slca", "drift.images"): "--config.drift.correction=shift",
    ("slca", "memory.generator"): "--config.drift.correction=shift",
}


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "where the run lies", flag_values=values)
    flags.DEFINE_integer("count", 3, "how many", flag_values=values)


def parse(*words, spec=CONFIG) -> settings.GeneratorRun:
    return cli.parse(["program", f"--config={spec}", *words], define, config=True).run


def call(*words, program=lambda arguments: None, config=True) -> int:
    argv = ["program", *words]
    return cli.main(program, doc="What it does.", define=define, config=config, argv=argv)


@pytest.fixture(autouse=True)
def _errors_in_one_line(monkeypatch, root):
    monkeypatch.delenv("FLCL_TRACEBACK", raising=False)
    monkeypatch.chdir(root)


def _spec(method: str) -> str:
    name = method.removeprefix("vit_")
    classifies = issubclass(settings.RUNS[method], settings.ClassifierRun)
    file, own = (CLASSIFIER, "fmlora") if classifies else (CONFIG, "funlora")
    return file if method == own else f"{file}:baseline={name}"


def _another(name: str, value, kind) -> str | None:
    """Text of a value other than `value` that the key accepts; None when there is no other."""
    if name in FITTING:
        return FITTING[name]
    if typing.get_origin(kind) is typing.Literal:
        return next((str(each) for each in typing.get_args(kind) if each != value), None)
    if kind is bool:
        return str(not value).lower()
    if kind is int:
        return str(2 * value or 1)
    if kind is float:
        return str(value / 2 or 0.25)
    assert kind is str, kind
    return "seed:7, a=b"


KEYS = [
    (method, name)
    for method, cls in settings.RUNS.items()
    for name, _ in bridge.keys(cls)
    # The scenario decides about the domains.
    if name not in ("method", "stream.scenario", "stream.domain_order")
]


_before = functools.lru_cache(parse)
"""What is parsed once for all keys of a method."""


@pytest.mark.parametrize(("method", "name"), KEYS)
def test_every_key_can_be_overridden(method, name):
    beside = BESIDE.get((method, name), "").split()
    before = _before(*beside, spec=_spec(method))
    old = bridge.value(before, name)
    kind = dict(bridge.keys(type(before)))[name].type
    text = _another(name, old, kind)
    if text is None:
        assert len(typing.get_args(kind)) == 1
        return
    after = parse(*beside, f"--config.{name}={text}", spec=_spec(method))
    new = bridge.value(after, name)
    assert new != old
    shown = ",".join(map(str, new)) if isinstance(new, tuple) else new
    assert str(shown).lower() == text.lower()
    changed = differing_keys(bridge.as_dict(before), bridge.as_dict(after))
    assert len(changed) == 1, changed


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("--config.model.multipliers=1,2", "model.multipliers", (1, 2)),
        ("--config.model.multipliers=(1,2)", "model.multipliers", (1, 2)),
        ("--config.model.multipliers=(1, 2)", "model.multipliers", (1, 2)),
        ("--config.model.multipliers=[1,2,2]", "model.multipliers", (1, 2, 2)),
        ("--config.model.multipliers=1,", "model.multipliers", (1,)),
        ("--config.model.multipliers=3", "model.multipliers", (3,)),
        ("--config.lora.sites=q,v", "lora.sites", ("q", "v")),
        ("--config.lora.sites=fc1", "lora.sites", ("fc1",)),
        ("--config.lora.sites=('q','fc2')", "lora.sites", ("q", "fc2")),
        ("--config.lora.sites=(q,v)", "lora.sites", ("q", "v")),
        ("--config.lora.sites=[q, v]", "lora.sites", ("q", "v")),
        ("--config.lora.sites=(k)", "lora.sites", ("k",)),
        ("--config.model.attention=()", "model.attention", ()),
        ("--config.data.flip", "data.flip", True),
        ("--config.data.flip=1", "data.flip", True),
        ("--noconfig.judge.flip", "judge.flip", False),
        ("--config.judge.flip=False", "judge.flip", False),
        ("-config.seed=5", "seed", 5),
        ("--config.phase1.learning_rate=1", "phase1.learning_rate", 1.0),
        ("--config.phase1.learning_rate=3e-2", "phase1.learning_rate", 0.03),
        ("--config.stream.tasks=4,2,2,2", "stream.tasks", "4,2,2,2"),
        ("--config.stream.tasks=2", "stream.tasks", "2"),
        ("--config.data.source=folder:/a b/c=d", "data.source", "folder:/a b/c=d"),
        ("--config.runtime.compile_cache=", "runtime.compile_cache", ""),
    ],
)
def test_ways_to_write_a_value(word, name, value):
    found = bridge.value(parse(word, spec=CLASSIFIER if "lora" in name else CONFIG), name)
    assert found == value
    assert type(found) is type(value)


def test_value_as_its_own_word_and_overrides_before_the_config():
    argv = ["program", "--config.seed", "4", "--config", CONFIG, "--count", "9"]
    arguments = cli.parse(argv, define, config=True)
    assert arguments.run.seed == 4
    assert arguments.flags.count == 9


def test_the_last_override_wins():
    assert parse("--config.seed=1", "--config.seed=2").seed == 2


def test_method_can_be_overridden_and_decides_which_keys_there_are():
    run = parse("--config.replay.images_per_class=5", "--config.method=generative_replay")
    assert type(run) is settings.ReplayRun
    assert run.replay.images_per_class == 5
    assert run.phase1.steps == parse().phase1.steps


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--config is missing, such as --config=funlora_digits"),
        (["--config=configs/funlora_digit.py"], "Did you mean 'configs/funlora_digits.py'?"),
        (["--config=nowhere/x.py"], "--config='nowhere/x.py': no such file."),
        (["--config=./configs"], "--config='./configs': is a folder, not a file."),
        (
            ["--config=nowhere"],
            "--config='nowhere': flcl has no config of this name. The names are",
        ),
        (["--config=funlora_digit"], "no config of this name. Did you mean 'funlora_digits'? The"),
        (["--config=common"], "--config='common': flcl has no config of this name."),
        (["--config=funlora_digits:smok"], "'smok': accepted, joined by commas, are smoke;"),
        (["--config"], "--config='': no such file."),
        (["--config=./LICENSE"], "--config='./LICENSE': not a Python file"),
        (["--config=configs/common.py"], "'configs/common.py': does not define get_config(arg)"),
        ([f"--config={CONFIG}", f"--config={CONFIG}"], "--config is given twice"),
        ([f"--config={CONFIG}:smok"], "'smok': accepted, joined by commas, are smoke; baseline="),
        ([f"--config={CONFIG}:family=cos"], "family=vanilla_add|vanilla_mult|shift|power|cosine|"),
        ([f"--config={CONFIG}:smoke,smoke"], "config argument 'smoke' is given twice"),
        (["--config=configs/defaults.py:x"], "config argument 'x': a method, one of funlora"),
        (["--config=gs://b/x.py"], "an address, and a path on this machine is needed"),
    ],
)
def test_mistakes_about_the_config_file(words, message, capsys):
    _expect_one_line(words, message, capsys)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--config.model.multiplier=1", "Did you mean 'model.multipliers'?"),
        ("--config.phase1=1", "'phase1' is a group of keys, such as 'phase1.steps'"),
        ("--config.phase1.steps=many", "--config.phase1.steps=many: int is needed"),
        ("--config.phase1.steps=2.5", "--config.phase1.steps=2.5: int is needed"),
        ("--config.phase1.steps=0", "phase1.steps=0: must be at least 1"),
        ("--config.phase1.steps", "Missing value for flag --config.phase1.steps"),
        ("--config.data.flip=maybe", "--config.data.flip=maybe: bool is needed"),
        ("--config.model.multipliers=1,a", "a tuple of int is needed, such as 1,2"),
        ("--config.model.multipliers=1,2.5", "a tuple of int is needed, such as 1,2"),
        ("--config.model.multipliers=", "a tuple of int is needed, such as 1,2"),
        ("--config.sample.solver=heum", "accepted are euler, midpoint, heun, dopri5"),
        ("--config.replay.images_per_class=3", "It belongs to method 'generative_replay'."),
        ("--config.method=funlra", "method='funlra': accepted are funlora"),
        ("--config.=1", "config key '' is read by no part"),
        ("--workdr=x", "unknown flag --workdr. Did you mean 'workdir'? See --help"),
        ("--confg.seed=1", "unknown flag --confg.seed"),
        ("--count=x", "--count=x: "),
        ("--config.adapter.lr=1", "Did you mean 'adapter.learning_rate'?"),
        ("--lr=1", "unknown flag --lr. Did you mean 'config.phase1.learning_rate'? See --help"),
        ("--seed=1", "unknown flag --seed. Did you mean 'config.seed'? See --help"),
        ("--config.phase1.steps=" + "9" * 5000, "99999...99999999999999999999: int is needed"),
        ("--config.phase1.steps=a\nb", "--config.phase1.steps=a b: int is needed"),
        ("--config.phase1.learning_rate=1e400", "phase1.learning_rate=inf: must be above 0, and"),
        ("--config.stream.capacity=1" + "0" * 12, "stream.capacity=1000000000000: must be 0 to"),
        ("word", "unexpected argument 'word': write --name=value"),
    ],
)
def test_mistakes_in_a_word(word, message, capsys):
    _expect_one_line([f"--config={CONFIG}", word], message, capsys)


@pytest.mark.parametrize(
    ("line", "words", "message"),
    [
        ("c.seed = -1", [], "{file}: seed=-1: must be 0 or more"),
        ("c.seed = -1", ["--config.name=x"], "{file}: seed=-1: must be 0 or more"),
        ("c.seed = -1", ["--config.method=funlora"], "{file}: seed=-1: must be 0 or more"),
        ("c.seed = -1", ["--config.seed=-2"], "error: seed=-2: must be 0 or more"),
        ("c.seed = -1; c.phase1.steps = 0", ["--config.seed=1"], "{file}: phase1.steps=0: must"),
        ("c.model.attention = (5,)", [], "{file}: model.attention=(5,): no level has size 5"),
        ("pass", ["--config.model.attention=(5,)"], "error: model.attention=(5,): no level has"),
        ("c.update(seed=placeholder(int))", [], "{file}: seed=None: int is needed"),
        ("del c.seed", ["--config.seed=3"], "{file}: config key 'seed' is missing"),
        ("del c.method", ["--config.method=finetune"], "{file}: method=None: accepted are"),
        ("del c.model", ["--config.model.width=8"], "{file}: config key 'model.width' is missing"),
        ("c.sed = 3", ["--config.method=finetune"], "{file}: config key 'sed' is read by no part"),
    ],
)
def test_what_the_file_gave_by_itself_is_told_with_its_name(line, words, message, tmp_path, capsys):
    file = _written(tmp_path, line)
    name = f"error: --config={str(file)!r}"
    _expect_one_line([f"--config={file}", *words], message.replace("{file}", name), capsys)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_shows_nothing_and_changes_no_file(closed, tmp_path):
    """What is printed must not go into a file that has got the number of the output."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\nfrom flcl import cli\n"
        "def program(arguments):\n"
        f"    file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "    for number in (1, 2):\n        os.write(number, b'from C++')\n"
        "    print('text', flush=True)\n    print('text', file=sys.stderr, flush=True)\n"
        "    raise ValueError('wrong')\n"
        "sys.exit(cli.main(program, doc='', define=lambda values: None))\n"
    )
    done = subprocess.run(["sh", "-c", f"{sys.executable} {program} {closed}"], capture_output=True)
    assert done.returncode == 2
    assert done.stderr in (b"", b"from C++text\nerror: wrong\n")
    assert (tmp_path / "file").read_text() == ""


def test_a_value_of_the_file_may_be_given_on_the_command_line(tmp_path):
    for line in (
        "c.seed = -1",
        "c.seed = None",
        "c.update(seed=placeholder(int))",
        "c.update(seed=placeholder(str))",
    ):
        assert parse("--config.seed=3", spec=_written(tmp_path, line)).seed == 3
    spec = _written(tmp_path, "c.model.multipliers = c.phase1.learning_rate = c.data.flip = None")
    words = ("--config.model.multipliers=1,2", "--config.data.flip=True")
    run = parse(*words, "--config.phase1.learning_rate=1", spec=spec)
    assert (run.model.multipliers, run.data.flip, run.phase1.learning_rate) == ((1, 2), True, 1.0)


def _written(folder, line: str):
    """A config file for the digits with one more line."""
    file = folder / "mine.py"
    file.write_text(
        "from ml_collections.config_dict import placeholder\n"
        "from flcl.settings import bridge\n"
        "def get_config(arg):\n"
        "    c = bridge.defaults('finetune')\n"
        f"    c.model.attention = ()\n    with c.ignore_type():\n        {line}\n    return c\n"
    )
    return file


def _expect_one_line(words, message, capsys):
    def program(arguments):
        raise AssertionError("must not be reached")

    assert call(*words, program=program) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_config_file_without_an_argument(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text(
        "from flcl.settings import bridge\n"
        "def get_config():\n"
        "    c = bridge.defaults('finetune')\n"
        "    c.model.attention = ()\n"
        "    return c\n"
    )
    assert parse(spec=str(path)).method == "finetune"
    with pytest.raises(ValueError, match="takes no argument, 'smoke' was given"):
        parse(spec=f"{path}:smoke")


def test_new_key_in_a_config_file_is_refused(tmp_path):
    path = tmp_path / "new.py"
    path.write_text(
        "from flcl.settings import bridge\n"
        "def get_config(arg):\n"
        "    c = bridge.defaults('funlora')\n"
        "    c.model.heads = 4\n"
        "    return c\n"
    )
    with pytest.raises(ValueError, match=r"'model\.heads' is read by no part"):
        parse(spec=str(path))


def _raising(error):
    def program(arguments):
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("name=3: accepted are 1, 2"), 2, "error: name=3: accepted are 1, 2"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: [Errno 13] Permission denied"),
        (FloatingPointError("loss is nan at step 3"), 1, "error: loss is nan at step 3"),
        (ValueError("first\nsecond"), 2, "error: first (FLCL_TRACEBACK=1 shows the rest)"),
        (ValueError(), 2, "error: ValueError (FLCL_TRACEBACK=1 shows the rest)"),
        (
            MemoryError("Unable to allocate 8 EiB"),
            1,
            "error: this machine is out of memory: Unable",
        ),
        (stopping.StoppedError("stopped at step 3"), 75, "stopped at step 3: run the same command"),
        (KeyboardInterrupt(), 130, "interrupted: run the same command to continue"),
    ],
)
def test_what_a_program_raises(error, code, line, capsys):
    assert call(f"--config={CONFIG}", program=_raising(error)) == code
    err = capsys.readouterr().err.strip()
    assert err.startswith(line)
    assert "\n" not in err


def test_an_error_that_may_pass_says_what_to_do(capsys):
    error = OSError(28, "No space left on device", "/x/y.json")
    assert call(f"--config={CONFIG}", program=_raising(error)) == 2
    line = "'/x/y.json'; when this is mended, run the same command again\n"
    assert capsys.readouterr().err.endswith(line)


def test_standard_output_on_a_full_disk(root):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, root / "launch" / "train.py", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: [Errno 28] No space left on device: 'standard output';")
    assert done.stderr.count("\n") == 1


def test_a_defect_keeps_its_traceback():
    with pytest.raises(KeyError):
        call(f"--config={CONFIG}", program=_raising(KeyError("defect")))


def test_traceback_on_request(monkeypatch, capsys):
    monkeypatch.setenv("FLCL_TRACEBACK", "1")
    assert call(f"--config={CONFIG}", program=_raising(ValueError("here"))) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("method", settings.RUNS)
def test_help_lists_every_key_with_value_and_comment(method, capsys):
    assert call(f"--config={_spec(method)}", "--config.seed=41", "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("What it does.")
    plain = re.sub(r"\s+", " ", out)
    run = parse("--config.seed=41", spec=_spec(method))
    for name, field in bridge.keys(type(run)):
        value = bridge.value(run, name)
        text = ",".join(map(str, value)) or "()" if isinstance(value, tuple) else value
        assert f"--config.{name}={text} {bridge.explained(field)}" in plain.replace("= ", "= ")
    assert max(map(len, out.splitlines())) <= 100


def test_help_without_a_config_says_how_to_see_the_keys(capsys):
    assert call("--help") == 0
    out = capsys.readouterr().out
    assert "--count=3" in out and "how many" in out
    assert "Add --config=NAME" in out


def test_help_of_a_program_without_a_config(capsys):
    assert call("-h", config=False) == 0
    assert "--config" not in capsys.readouterr().out


def test_require_names_the_flag_and_an_example():
    assert cli.require("x", "workdir", "runs/NAME") == "x"
    with pytest.raises(ValueError, match="--workdir is missing, such as --workdir=runs/NAME"):
        cli.require(None, "workdir", "runs/NAME")


def test_new_file_is_never_an_old_one(tmp_path):
    old = tmp_path / "old.png"
    old.write_text("x")
    with pytest.raises(ValueError, match="exists already; choose another name or add --overwrite"):
        cli.new_file(str(old), overwrite=False)
    assert cli.new_file(str(old), overwrite=True) == old
    with pytest.raises(ValueError, match=r"must end in \.png or \.npz"):
        cli.new_file(str(tmp_path / "new.gif"), False, (".png", ".npz"))
    with pytest.raises(ValueError, match="there is no folder"):
        cli.new_file(str(tmp_path / "no" / "new.png"), False)
    assert cli.new_file(str(tmp_path / "new.png"), False, (".png",)) == tmp_path / "new.png"


# The programs themselves, as a user starts them.


def test_the_scenario_and_its_domains_can_be_overridden():
    words = ("--config.stream.scenario=dil", "--config.stream.domain_order=oil,ink")
    run = parse(*words, spec=CLASSIFIER)
    assert (run.stream.scenario, run.stream.domain_order) == ("dil", "oil,ink")
