"""The configs that come with flcl are found by name, wherever they lie, whatever else is there."""

import shutil
import sys
import types

import pytest

from flcl.settings import bridge, config_file
from flcl.settings.given import packaged


def test_every_config_has_a_name(root):
    others = {"__init__", "arguments", "classifiers", "common"}
    assert set(packaged.names()) == {file.stem for file in (root / "configs").glob("*.py")} - others
    assert packaged.find("funlora_digits") == root / "configs" / "funlora_digits.py"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("funlora_digits", True),
        ("anything", True),
        ("mine.py", False),
        ("./mine", False),
        ("configs\\mine", False),
        ("", False),
    ],
)
def test_a_word_is_a_name_and_the_rest_are_files(text, named):
    assert packaged.is_name(text) is named


def test_a_name_and_its_file_are_the_same_config(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "funlora_digits.py").write_text("this is not read")
    for word in ("", ":smoke", ":family=power"):
        by_name = config_file.load_config(f"funlora_digits{word}")
        by_file = config_file.load_config(f"{root}/configs/funlora_digits.py{word}")
        assert bridge.freeze(by_name) == bridge.freeze(by_file)


def test_in_a_wheel_they_lie_inside_the_library(root, tmp_path, monkeypatch):
    library = tmp_path / "flcl"
    shutil.copytree(root / "configs", library / "configs")
    monkeypatch.setattr(packaged, "_LIBRARY", library)
    assert packaged.find("funlora_digits") == library / "configs" / "funlora_digits.py"
    file = tmp_path / "mine.py"
    file.write_text("from configs import common\ndef get_config(arg): raise ValueError(common)\n")
    with pytest.raises(ValueError, match=str(library / "configs" / "common.py")):
        config_file.load_config(str(file))


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A user's own package `configs`, imported: with the name of one of ours, and another."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "common.py").write_text("NAME = 'theirs'\n")
    (folder / "mine.py").write_text(
        "from configs import common\nfrom flcl.settings import bridge\n"
        "def get_config(arg):\n"
        "    config = bridge.defaults('funlora')\n    config.name = common.NAME\n"
        "    return config\n"
    )
    package = types.ModuleType("configs")
    package.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "configs", package)
    return folder


def test_a_package_of_the_user_with_this_name_stays(theirs):
    before = sys.modules["configs"]
    assert config_file.load_config("funlora_digits").name.startswith("digits")
    assert sys.modules["configs"] is before and "configs.common" not in sys.modules
    with pytest.raises(ValueError, match="broken"):  # also after an error
        config_file.load_config(str(_broken(theirs.parent)))
    assert sys.modules["configs"] is before and "configs.common" not in sys.modules


def test_a_file_in_a_package_of_this_name_imports_its_own(theirs):
    assert config_file.load_config(str(theirs / "mine.py")).name == "theirs"
    assert config_file.load_config("funlora_digits").name.startswith("digits")


def test_an_error_in_the_imported_package_is_told_with_the_line_of_the_file(theirs):
    (theirs / "common.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=r"mine.py', line 1 is broken: ZeroDivisionError"):
        config_file.load_config(str(theirs / "mine.py"))


def _broken(folder):
    file = folder / "broken.py"
    file.write_text("from configs import common\n1 / 0\n")
    return file
