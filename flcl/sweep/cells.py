"""The cells of a sweep: every combination of a row, values of keys, an order and a seed."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flcl import files, hints, settings
from flcl.runs import results
from flcl.runs.planned.stored import lengths, with_lengths
from flcl.runs.saved.differences import decisive, differing_keys
from flcl.settings import bridge, formats
from flcl.settings.generator.factors import FOUND_LAYERS
from flcl.sweep.rows import Row

# Values of keys that a run replaces by what it finds, such as the SHA-256 of its weights.
_OPEN = (None, "", "weights")
# What `flcl.data.sequence.orders` accepts without knowing the classes.
_CLASS_ORDER = re.compile(r"natural|seed:\d+|\s*\d+\s*(,\s*\d+\s*)+", re.ASCII)
_LONGEST = 60  # characters of a part of a name
_STATES = ("new", "begun", "finished")
_SHOWN = 4  # differing keys in an error

Settings = settings.Run | settings.Combined


class Plan(NamedTuple):
    """What a sweep varies. Orders and seeds are those of the config if there are none here.

    Attributes:
      rows: the methods.
      grid: for each key the values that it takes, as on a command line.
      orders: values of `stream.class_order`, or of `stream.domain_order` for domains.
      seeds: values of `seed`.
      paired: the first seed goes with the first order, the second with the second, and so on;
        otherwise every seed goes with every order.
      words: words of the command line for all cells, such as `--config.data.train_per_class=10`.
    """

    rows: Sequence[Row]
    grid: Mapping[str, Sequence[str]]
    orders: Sequence[str]
    seeds: Sequence[str]
    paired: bool = False
    words: Sequence[str] = ()


class Cell(NamedTuple):
    """One run of a sweep.

    Attributes:
      number: from 1, in the order of the sweep.
      name: the name of its folder: row, values of keys, order and seed.
      workdir: its folder.
      words: the words after `flcl train`.
      run: its settings.
    """

    number: int
    name: str
    workdir: Path
    words: tuple[str, ...]
    run: Settings

    def places(self) -> Iterator[tuple[Path, settings.Run]]:
        """The folder and the settings of each run of the cell: one, or a combined config's two."""
        if not isinstance(self.run, settings.Combined):
            yield self.workdir, self.run
            return
        yield self.workdir / "generator", self.run.generator
        memory = self.run.with_generator(str(self.workdir / "generator"))
        yield self.workdir / "classifier", memory

    def state(self) -> str:
        """`new`, `begun` or `finished`; of two runs that of the less finished one."""
        return min((_state(place) for place, _ in self.places()), key=_STATES.index)


def make(plan: Plan, out: Path, parse: Callable[[str, Sequence[str]], Settings]) -> list[Cell]:
    """All cells of a sweep in the folder `out`, checked.

    parse: settings of a config's `NAME:ARG` and words of a command line; it raises `ValueError`.

    Raises `ValueError`, with the name of the cell, for settings that are not valid, for two cells
    with one name or with equal settings, and for a folder that holds a run of other settings.
    """
    cells, names, known = [], set(), {}
    for row, values, (order, seed) in itertools.product(plan.rows, _grid(plan), _repeats(plan)):
        cell = _cell(plan, row, values, order, seed, out, parse)
        cell = cell._replace(number=len(cells) + 1)
        # Some file systems do not distinguish cases.
        if cell.name.casefold() in names:
            raise ValueError(f"two cells have the name {cell.name!r}: a value is given twice")
        names.add(cell.name.casefold())
        twin = known.setdefault(_identity(cell.run), cell.name)
        if twin != cell.name:
            raise ValueError(f"cells {twin!r} and {cell.name!r} have the same settings")
        for place, run in cell.places():
            _check_folder(cell.name, place, run)
        cells.append(cell)
    return cells


def _cell(plan, row: Row, values: tuple, order, seed, out: Path, parse) -> Cell:
    """A cell without its number."""
    given = [*row.words, *plan.words, *(f"--config.{key}={text}" for key, text in values)]
    label = "-".join([row.name, *(f"{key}={text}" for key, text in values)])
    try:
        run = parse(row.spec, given)
        repeat = []
        for prefix, part in _parts(run):
            if seed is not None:
                repeat.append(f"--config.{prefix}seed={seed}")
            if order is not None:
                _check_order(order_key(part), order)
                repeat.append(f"--config.{prefix}{order_key(part)}={order}")
        run = parse(row.spec, [*given, *repeat])
    except ValueError as error:
        raise ValueError(f"cell {label}: {error}") from None
    _, first = next(_parts(run))
    texts = (label, bridge.value(first, order_key(first)), f"s{first.seed}")
    name = "-".join(map(_slug, texts))
    workdir = out / name
    words = (f"--config={row.spec}", f"--workdir={workdir}", *given, *repeat)
    return Cell(0, name, workdir, words, run)


def order_key(run: settings.Run) -> str:
    """The key of a run that orders its tasks: of classes, or of domains."""
    domains = run.stream.scenario == "dil" and isinstance(run.stream, settings.Stream)
    return "stream.domain_order" if domains else "stream.class_order"


def _check_order(key: str, order: str) -> None:
    ids = [text.strip() for text in order.split(",")]
    if key == "stream.class_order" and (
        not _CLASS_ORDER.fullmatch(order) or len(set(ids)) < len(ids)
    ):
        raise ValueError(
            f"{key}={hints.quoted(order)}: accepted are natural, seed:N and a list of class ids, "
            'each once; a list needs quotes of its own: \'--orders="0,1,2","2,1,0"\''
        )


def _parts(run: Settings) -> Iterator[tuple[str, settings.Run]]:
    """The runs of some settings, each with the beginning of its keys."""
    if not isinstance(run, settings.Combined):
        yield "", run
        return
    for name in settings.PARTS:
        yield f"{name}.", getattr(run, name)


def _grid(plan: Plan) -> Iterator[tuple[tuple[str, str], ...]]:
    keys = list(plan.grid)
    for values in itertools.product(*plan.grid.values()):
        yield tuple(zip(keys, values, strict=True))


def _repeats(plan: Plan) -> list[tuple[str | None, str | None]]:
    """Pairs of an order and a seed; None = that of the config."""
    orders, seeds = plan.orders or [None], plan.seeds or [None]
    if not plan.paired:
        return list(itertools.product(orders, seeds))
    if len(orders) != len(seeds):
        raise ValueError(
            f"--paired: --seeds has {len(plan.seeds)} values and --orders {len(plan.orders)}; give "
            "as many seeds as orders"
        )
    return list(zip(orders, seeds, strict=True))


def _slug(text: str) -> str:
    """`text` as part of the name of a folder; texts that would look alike get a digest."""
    plain = re.sub(r"[^\w.=+-]", "-", text.replace(",", "_"), flags=re.ASCII)
    # A colon becomes a dash, a comma an underscore: as in `seed:1` and lists of names.
    if set(text) - set(plain) <= {":", ","} and len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _identity(run: Settings) -> str:
    # Other minutes give other lengths, although they are no key of a result.
    parts = [[decisive(bridge.as_dict(part)), part.runtime.minutes] for _, part in _parts(run)]
    return files.as_json(parts).decode()


def _state(place: Path) -> str:
    """The state of the run in a folder: one of `_STATES`."""
    try:
        stored = files.read_json(place / results.NAME)
        # Without its settings nobody knows whose results these are: the run says what to do.
        if stored is not None and results.from_json(stored).complete and formats.read(place):
            return "finished"
    except ValueError:  # damaged: the run makes it again or says what to do
        pass
    return "begun" if any((place / n).exists() for n in (formats.NAME, results.NAME)) else "new"


def _check_folder(name: str, place: Path, run: settings.Run) -> None:
    """Raises `ValueError` for a folder with a run of other settings, or a file in its place."""
    if place.exists() and not place.is_dir():
        raise ValueError(f"cell {name}: {place} is a file, and a folder is needed")
    try:
        stored = formats.read(place)
    except formats.NewerError:
        raise
    except ValueError:  # damaged: the run makes it again or says what to do
        return
    if stored is None:
        return
    # A planned run has other lengths than those that were asked for.
    if run.runtime.minutes and stored["method"] == run.method:
        try:
            run = with_lengths(run, lengths(place, run, begun=True) or {})
        except ValueError as error:
            raise ValueError(f"cell {name}: {error}") from None
    given = decisive(bridge.as_dict(run))
    lines = differing_keys(_without_open(decisive(stored), given), _without_open(given, given))
    # If the method differs, nearly every key differs.
    if lines := [line for line in lines if line.startswith("method:")] or lines:
        shown = "; ".join(lines[:_SHOWN]) + ("; ..." if len(lines) > _SHOWN else "")
        raise ValueError(
            f"cell {name}: {place} holds a run of another config ({hints.brief(shown)}); choose "
            "another --out, or move that folder away"
        )


def _is_open(value) -> bool:
    found = isinstance(value, str) and value.startswith(FOUND_LAYERS)
    return found or value in _OPEN


def _without_open(values: dict, given: Mapping) -> dict:
    """A tree of keys without those whose value in `given` a run replaces."""
    kept = {}
    for name, value in values.items():
        if isinstance(value, dict):
            kept[name] = _without_open(value, given.get(name, {}))
        elif not _is_open(given.get(name, name)):
            kept[name] = value
    return kept
