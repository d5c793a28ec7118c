"""The configs that come with flcl: in a wheel `flcl/configs`, in a checkout `configs/` beside it.

They import each other as `configs`. That is a common name for a folder, so it means these files
only while a config file is executed: a user's own package `configs` stays as it was.
"""

import contextlib
import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

import flcl
from flcl import hints

PACKAGE = "configs"
_LIBRARY = Path(flcl.__file__).parent
# A file that defines the function of a config, at the beginning of a line.
_DEFINES = re.compile(r"^(def get_config\b|get_config\s*=|from .* import .*\bget_config\b)", re.M)


def folder() -> Path:
    """The folder of the configs that come with flcl."""
    inside = _LIBRARY / PACKAGE
    return inside if inside.is_dir() else _LIBRARY.parent / PACKAGE


def names() -> list[str]:
    """The names of these configs, such as `funlora_digits`, sorted."""
    return [file.stem for file in sorted(folder().glob("*.py")) if is_config(file)]


def is_name(text: str) -> bool:
    """Whether `text` names a config of flcl and not a file: no slash, and no `.py` at its end."""
    return bool(text) and not text.endswith(".py") and not set("/\\") & set(text)


def find(name: str) -> Path:
    """The file of the config `name`; `ValueError` for an unknown one, with the names."""
    known = names()
    if name in known:
        return folder() / f"{name}.py"
    raise ValueError(
        f"--config={hints.quoted(name)}: flcl has no config of this name."
        f"{hints.did_you_mean(name, known)} The names are {', '.join(known)}; a file of yours "
        "ends in .py"
    )


def is_config(file: Path) -> bool:
    """Whether a file looks like a config: only for suggestions and lists."""
    try:
        # A pipe or a device would never end.
        return file.is_file() and bool(_DEFINES.search(file.read_text("utf-8")))
    except (OSError, ValueError):  # what cannot be read is not suggested
        return False


@contextlib.contextmanager
def importable(file: Path) -> Iterator[None]:
    """Inside the block `import configs` finds the configs of flcl.

    If `file` itself lies in a package `configs`, it finds that one: a copy of the whole folder
    uses its own common parts.
    """
    beside = file.absolute().parent
    own = beside.name == PACKAGE and (beside / "__init__.py").is_file()
    wanted = beside if own else folder()
    before, finder = _modules(), _Finder(wanted)
    foreign = not _is_of(before.get(PACKAGE), wanted)
    if foreign:
        _forget(before)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if foreign:
            _forget(_modules())
            sys.modules.update(before)


class _Finder:
    """Finds the package `configs` in one place, and nothing else."""

    def __init__(self, place: Path):
        self._parent = str(place.parent)

    def find_spec(self, name: str, path=None, target=None):
        del path, target
        return PathFinder.find_spec(name, [self._parent]) if name == PACKAGE else None


def _modules() -> dict[str, ModuleType]:
    """What is imported as `configs`, with all that is inside it."""
    return {
        name: module
        for name, module in sys.modules.items()
        if name == PACKAGE or name.startswith(f"{PACKAGE}.")
    }


def _is_of(module: ModuleType | None, wanted: Path) -> bool:
    paths = [Path(path).resolve() for path in getattr(module, "__path__", ())]
    return paths == [wanted.resolve()]


def _forget(modules: dict[str, ModuleType]) -> None:
    for name in modules:
        del sys.modules[name]
