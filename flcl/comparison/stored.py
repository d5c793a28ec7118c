"""What a comparison reads of a run on disk. A folder from somebody else is data and no code."""

import functools
import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flcl import files, hints, settings
from flcl.report import reading
from flcl.runs import results
from flcl.runs.results import ClassifierResults, HeadResults, Results
from flcl.runs.saved.differences import decisive
from flcl.runs.saved.stored import read_stream, read_timing, typed_stream
from flcl.settings import bridge, formats
from flcl.storage import foreign, paths
from flcl.storage.seals import Seals, digest


class StoredRun(NamedTuple):
    """A run on disk.

    Attributes:
      workdir: its folder.
      settings: its settings.
      results: its `results.json`.
      data: names and numbers of images of its classes, by name of the entry of `stream.json`.
      domains: the order of its domains; empty for classes.
      timing: its `timing.json`; empty if there is none.
    """

    workdir: Path
    settings: settings.Run
    results: Results
    data: Mapping[str, Any]
    domains: tuple[str, ...]
    timing: Mapping[str, Any]

    @property
    def repeat(self) -> tuple:
        """What makes it one of several runs of a group: its seed and the order of its tasks."""
        return self.settings.seed, self.results.class_order, self.domains

    @property
    def order(self) -> str:
        """The order of its tasks, as its settings say it."""
        stream = self.settings.stream
        return stream.domain_order if self.domains else stream.class_order

    @property
    def heads(self) -> dict[str, HeadResults]:
        """The results of every head; empty for a generator."""
        return reading.heads(self.results)

    @property
    def head(self) -> str:
        """The head that answers; empty for a generator."""
        return self.results.head if isinstance(self.results, ClassifierResults) else ""

    @property
    def images(self) -> str | None:
        """SHA-256 of all its images in any order; None = unknown, as in runs of older versions."""
        known = [task.images or "" for task in self.results.diagnosis]
        if not known or not all(re.fullmatch("[0-9a-f]{64}", each) for each in known):
            return None
        return f"{sum(int(each, 16) for each in known) % 2**256:064x}"  # see `digest.of_set`

    @property
    def joint(self) -> bool:
        """Whether all tasks were trained at once, so that nothing happens over tasks."""
        return self.settings.stream.joint

    def keys(self) -> dict[str, object]:
        """Every key that decides about results, by its dotted name.

        The generator that is the memory of a classifier is another one for every seed: only
        whether there is one counts.
        """
        return _keys(self.settings)


@functools.lru_cache(maxsize=4096)
def _keys(run: settings.Run) -> dict[str, object]:
    kept = _leaves(decisive(bridge.as_dict(run)))
    digest_of_memory = kept.pop("memory.sha256", None)
    if digest_of_memory is not None:
        kept["memory.generator"] = "a run" if digest_of_memory else ""
    return kept


def _leaves(values: Mapping, prefix: str = "") -> dict[str, object]:
    leaves = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = tuple(value) if isinstance(value, list) else value
    return leaves


def find(patterns: Iterable[str | os.PathLike]) -> list[Path]:
    """The workdirs that paths and patterns name, in order, each once.

    A pattern such as `runs/digits/*` may also match what is no run: that is left out. Raises
    `ValueError` for a path without a run, and for a pattern that matches none.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        place = paths.local(pattern, "path")
        if _holds_run(place):
            found[place] = None
            continue
        matches = [Path(name) for name in sorted(glob.glob(str(place)))]
        runs = [match for match in matches if _holds_run(match)]
        if not runs:
            raise ValueError(f"{place} holds no run: {formats.NAME} is missing")
        found |= dict.fromkeys(runs)
    return list(found)


def _holds_run(place: Path) -> bool:
    return (place / formats.NAME).is_file()


def read(workdir: Path) -> StoredRun | None:
    """The run in a folder; None if no task of it is evaluated yet.

    Raises `ValueError` in one line for files that are damaged, that were changed since the run
    wrote them, or that a newer version wrote.
    """
    foreign.check_folder(workdir)
    run = formats.load(workdir)
    if run is None:
        raise ValueError(f"{workdir} holds no run: {formats.NAME} is missing")
    path = workdir / results.NAME
    stored = files.read_json(path)
    if stored is None:
        return None
    if Seals(workdir, writes=False).holds(results.NAME, digest(files.read_bytes(path))) is False:
        raise ValueError(
            f"{path} has changed since the run wrote it: bring it back, or remove it and repeat "
            "the command of the run"
        )
    typed = results.from_json(stored, str(path))
    stream = read_stream(workdir)
    data, domains = ({}, ()) if stream is None else _data(stream)
    return StoredRun(workdir, run, typed, data, domains, read_timing(workdir))


def _data(stream: Mapping) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What tells whether two runs have the same images, and the order of domains."""
    stored = typed_stream(stream)
    data = {
        "class_names": stored.class_names,
        "domain_names": stored.domain_names,
        "train_images": stored.train_images,
        "test_images": stored.test_images,
    }
    if stored.stream.scenario != "dil":
        return data, ()
    return data, tuple(stored.domain_names[i] for i in stored.stream.domain_order)


def read_all(workdirs: Sequence[Path], allow: Sequence[str]) -> tuple[list[StoredRun], list[str]]:
    """All runs, and a line about those that are left out because they are unfinished.

    allow: with `unfinished` in it they are left out; otherwise `ValueError` names them.
    """
    runs, unfinished = [], []
    for workdir in workdirs:
        run = read(workdir)
        if run is not None and run.results.complete:
            runs.append(run)
        else:
            unfinished.append(str(workdir))
    if not unfinished:
        return runs, []
    names = hints.shortened(", ".join(unfinished), 300)
    if "unfinished" not in allow:
        raise ValueError(
            f"{len(unfinished)} of {len(workdirs)} runs are not finished: {names}; train them, or "
            "leave them out with --allow=unfinished"
        )
    if not runs:
        raise ValueError(f"no run is finished: {names}")
    return runs, [f"Left out, because they are not finished: {names}."]
