"""Reads a config file: Python that a user wrote, so every error in it is told with its place."""

import importlib.util
import inspect
import os
import re
import traceback
from pathlib import Path
from types import ModuleType

import ml_collections

from flcl import files, hints
from flcl.settings import bridge
from flcl.settings.given import packaged
from flcl.stopping import StoppedError
from flcl.storage import paths

# What ends a program from outside, whatever code runs at that moment.
_SIGNALS = (StoppedError, KeyboardInterrupt)
# A folder may have a colon in its name; without `.py` the first colon counts.
_SPEC = re.compile(r"(.*?\.py|[^:]*)(?::(.*))?", re.DOTALL)


class ArgumentError(ValueError):
    """A word after the colon of `--config=FILE:ARG` that the config does not know.

    Its text is for the person who typed the word: it needs no line of the config file.
    """


def load_config(spec: str) -> ml_collections.ConfigDict:
    """The config of `NAME`, `NAME:argument`, `path.py` or `path.py:argument`, before overrides.

    A word without a slash and without `.py` is the name of a config that comes with flcl.
    Raises `ValueError` in one line, with the line of the file where there is one: if the name is
    unknown, if the file is missing, is no Python or has no `get_config`, if its code or
    `get_config` raises anything, if that does not accept the argument, and if it returns anything
    but a `ConfigDict` with the keys of a method. An `OSError` of the file itself is raised
    unchanged.
    """
    name, argument = split(spec)
    path = _file(name)
    with packaged.importable(path):
        get_config = getattr(_run(path), "get_config", None)
        if not callable(get_config):
            raise ValueError(
                f"--config={name!r}: does not define get_config(arg), which returns the config"
            )
        config = _call(path, get_config, argument)
    if inspect.iscoroutine(config):
        config.close()  # or Python complains when it is deleted
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(
            f"--config={name!r}: get_config returned {hints.quoted(config)}; a ConfigDict is "
            "needed, such as the one that bridge.defaults(method) makes"
        )
    try:
        config.copy_and_resolve_references()
    except Exception as error:  # a required value that is not set, references in a circle
        raise _broken(path, error) from error
    try:
        bridge.check_form(config)
    except ValueError as error:
        raise ValueError(f"--config={name!r}: {hints.brief(str(error))}") from None
    # A frozen one could not be overridden.
    return bridge.with_places(ml_collections.ConfigDict(config))


def split(spec: str) -> tuple[str, str]:
    """Name and argument of `NAME:argument` or `path.py:argument`; no argument is an empty text."""
    name, argument = _SPEC.fullmatch(spec).groups()
    return name, argument or ""


def _file(name: str) -> Path:
    """The file of a config: one that comes with flcl, or a user's."""
    if packaged.is_name(name):
        return packaged.find(name)
    path = paths.local(name, "--config") if name else Path()
    if not name or not _is_regular(path):
        what = "is a folder, not a file" if name and path.is_dir() else "no such file"
        raise ValueError(f"--config={hints.quoted(name)}: {what}.{_similar(path) if name else ''}")
    if path.suffix != ".py":
        raise ValueError(f"--config={name!r}: not a Python file, its name must end in .py")
    return path


def _is_regular(path: Path) -> bool:
    try:
        return not files.special(path.stat())
    except (FileNotFoundError, NotADirectoryError):  # a folder that may not be read is told as such
        return False


def _run(path: Path) -> ModuleType:
    # Read first: a file that cannot be read is no error in its code.
    path.read_bytes()
    module_spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except _SIGNALS:  # not the file ends the program
        raise
    except BaseException as error:  # also `sys.exit`
        raise _broken(path, error) from error
    return module


def _call(path: Path, get_config, argument: str) -> object:
    try:
        signature = inspect.signature(get_config)
    except ValueError as error:  # such as `dict`, which is not written in Python
        raise ValueError(f"--config={str(path)!r}: get_config has {error}") from None
    parameters = signature.parameters
    if not parameters and argument:
        raise ArgumentError(f"--config={str(path)!r}: takes no argument, {argument!r} was given")
    try:
        signature.bind(*([argument] if parameters else []))
    except TypeError as error:
        raise ValueError(
            f"--config={str(path)!r}: get_config{signature} is called with one text, the argument "
            f"after the colon, which does not fit ({error})"
        ) from None
    try:
        return get_config(argument) if parameters else get_config()
    except (ArgumentError, *_SIGNALS):
        raise
    except BaseException as error:  # also `sys.exit`
        raise _broken(path, error) from error


def _broken(path: Path, error: BaseException) -> ValueError:
    """The error for a file whose code raised `error`: file, line, exception."""
    file = os.path.abspath(path)  # as Python names it
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    # A syntax error is in no frame of the file, because nothing of it was executed.
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    where = f", line {lines[-1]}" if lines and lines[-1] else ""
    text = error.msg if isinstance(error, SyntaxError) else hints.text_of(error)
    what = f"{type(error).__name__}: {text}".removesuffix(": ")
    return ValueError(hints.brief(f"--config={str(path)!r}{where} is broken: {what}"))


def _similar(path: Path) -> str:
    """A suggestion among the config files beside `path`, those of a checkout, and flcl's names."""
    stems = {name: name for name in packaged.names()}
    for folder in (Path("configs"), path.parent):
        stems |= {f.stem: str(f) for f in folder.glob("*.py") if packaged.is_config(f)}
    near = hints.nearest(path.stem, sorted(stems))
    return "" if near is None else f" Did you mean {stems[near]!r}?"
