"""A config file is a user's own code: every error in it is one line with its place."""

import os

import pytest

from flcl.settings import config_file
from flcl.stopping import StoppedError

DEFAULTS = (
    "from flcl.settings import bridge\ndef get_config(arg):\n    c = bridge.defaults('funlora')\n"
)
EDITS = DEFAULTS + "    with c.ignore_type():\n"
EMPTY = "from ml_collections import ConfigDict\ndef get_config(arg):\n    return ConfigDict()\n"
BROKEN = {
    "def get_config(a):\n    return 1 / 0\n": "line 2 is broken: ZeroDivisionError: division by",
    "def get_config(a):\n    raise ValueError('1\\n2')\n": "line 2 is broken: ValueError: 1 2",
    "def get_config(a):\n    open('nowhere/x')\n": "line 2 is broken: FileNotFoundError: ",
    "def get_config(a):\n    return get_config(a)\n": "line 2 is broken: RecursionError: ",
    "x = 1\ndef get_config(:\n": "line 2 is broken: SyntaxError: invalid syntax",
    "\n\nimport nowhere_at_all\n": "line 3 is broken: ModuleNotFoundError: No module named",
    "import sys\nsys.exit(0)\n": "line 2 is broken: SystemExit: 0",
    "def get_config(a):\n    raise SystemExit\n": "line 2 is broken: SystemExit",
    "raise GeneratorExit\n": "line 1 is broken: GeneratorExit",
    "class E(BaseException): pass\ndef get_config(a):\n    raise E(1)\n": "line 3 is broken: E: 1",
    "raise MemoryError\n": "line 1 is broken: MemoryError",
    "a\0b": " is broken: SyntaxError: source code string cannot contain null bytes",
    "class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n": "line 3 is broken: E",
    DEFAULTS + "    c.phase1.steps = 'x'\n": "line 4 is broken: TypeError: Could not override",
    DEFAULTS + "    c.lock().phase9.steps = 1\n": "line 4 is broken: AttributeError: ",
    DEFAULTS: "get_config returned None; a ConfigDict is needed",
    "def get_config(a):\n    return 3\n": "get_config returned 3; a ConfigDict is needed",
    "def get_config(a):\n    return {}\n": "get_config returned {}; a ConfigDict is needed",
    "async def get_config(a):\n    pass\n": "get_config returned <coroutine object get_config at",
    "get_config = dict\n": "get_config has no signature found for builtin type <class 'dict'>",
    "get_config = 3\n": "does not define get_config(arg)",
    "x = 1\n": "does not define get_config(arg)",
    "def get_config(a, b):\n    pass\n": "get_config(a, b) is called with one text",
    "def get_config(*, b):\n    pass\n": "get_config(*, b) is called with one text",
    "from ml_collections.config_dict import required_placeholder\n"
    + DEFAULTS
    + "    c.seed = required_placeholder(int)\n    return c\n": "is broken: RequiredValueError: ",
    EMPTY: ": method=None: accepted are funlora, ",
    DEFAULTS + "    del c.method\n    return c\n": ": method=None: accepted are funlora, ",
    DEFAULTS + "    c.method = 'fun'\n    return c\n": ": method='fun': accepted are funlora, ",
    EDITS + "        c.method = ['x']\n    return c\n": ": method=['x']: accepted are funlora, ",
    EDITS + "        c.seed = 'x'\n    return c\n": ": seed='x': int is needed",
    EDITS + "        c.model = 3\n    return c\n": ": config key 'model' is a group of keys",
    DEFAULTS + "    del c.seed\n    return c\n": ": config key 'seed' is missing",
    DEFAULTS + "    del c.model\n    return c\n": ": config key 'model.width' is missing",
    DEFAULTS + "    c.sed = 3\n    return c\n": ": config key 'sed' is read by no part of method",
    DEFAULTS + "    c.x = type(c)()\n    return c\n": ": config key 'x' is read by no part",
}


@pytest.mark.parametrize("text", BROKEN)
def test_an_error_names_file_line_and_exception(text, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        config_file.load_config(str(file))
    assert str(caught.value).startswith(f"--config={str(file)!r}")
    assert BROKEN[text] in str(caught.value) and "\n" not in str(caught.value)


def test_a_stop_is_no_error_of_the_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        config_file.load_config(str(file))


def test_a_file_that_cannot_be_read_is_not_called_broken(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text("def get_config(a): pass\n")

    def read_bytes(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(file), "read_bytes", read_bytes)
    with pytest.raises(PermissionError):
        config_file.load_config(str(file))


@pytest.mark.parametrize("name", ["a:b.py", "c:d/x.py"])
def test_a_colon_in_a_name_and_an_argument(name, tmp_path):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(DEFAULTS + "    c.name = arg\n    return c\n")
    assert config_file.load_config(f"{file}:one:two").name == "one:two"


def test_home_is_expanded_and_a_frozen_config_can_be_edited(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = DEFAULTS.replace("funlora", "finetune") + "    return FrozenConfigDict(c)\n"
    (tmp_path / "x.py").write_text("from ml_collections import FrozenConfigDict\n" + text)
    config = config_file.load_config("~/x.py")
    config.seed = 7
    assert config.method == "finetune"


def test_what_is_no_config_is_refused_and_never_suggested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "commons.py").write_text('"""About get_config(arg)."""\n')
    (tmp_path / "mine.py").write_text("def get_config(arg): pass\n")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    for name, line in {
        "common.py": "--config='common.py': no such file.",
        "mines.py": "--config='mines.py': no such file. Did you mean 'mine.py'?",
        "./mine": "--config='./mine': no such file. Did you mean 'mine.py'?",
        "fmlora_cub.py": "--config='fmlora_cub.py': no such file. Did you mean 'fmlora_cub200'?",
        "nowhere.py": "--config='nowhere.py': no such file.",
        "pipe.py": "--config='pipe.py': no such file.",
        "folder.py": "--config='folder.py': is a folder, not a file.",
        "": "--config='': no such file.",
    }.items():
        with pytest.raises(ValueError) as caught:
            config_file.load_config(name)
        assert str(caught.value) == line


@pytest.mark.parametrize("inside", ["", "def get_config(arg):\n    "])
def test_a_stop_inside_the_file_passes(inside, tmp_path):
    file = tmp_path / "stopped.py"
    file.write_text(
        f"from flcl import stopping\n{inside}raise stopping.StoppedError('by a signal')\n"
    )
    with pytest.raises(StoppedError, match="by a signal"):
        config_file.load_config(str(file))
