"""Files that a run left, damaged in every way, and then used."""

import json
import os
import shutil
from pathlib import Path

import numpy as np

from campaign.trial import EQUAL, REPAIRED, Fault, Trial, command, contents, one_line, succeeded

# Files without a meaning for a run: events are made again, the lock has only a number.
_IGNORED = ("tensorboard", ".lock")


def damage(trial: Trial) -> str:
    """Damages one file of a run and uses the run: equal, repaired, or one line that names it."""
    method = trial.pick(("funlora", "fmlora"))
    start = trial.pick(("finished", "finished", "inside 3"))
    trial.prepared.copy(method, start, trial.workdir)
    path = _target(trial)
    way = trial.pick(_ways(path))
    inside = path.relative_to(trial.workdir)
    trial.note(f"{method} at {start!r}: {way.__name__} of {inside}")
    before = _fingerprint(path)
    note = way(path, trial.random)
    if note:
        trial.note(note)
    damaged = _fingerprint(path)
    if damaged == before and way is not stray:
        return EQUAL
    left = contents(trial.workdir)
    action = trial.pick(("train", "train", "use"))
    trial.note(f"then {action}")
    done = (_train if action == "train" else _use)(trial, method)
    if done.code:
        ending = one_line(done, *_names(inside))
        _check_nothing_lost(trial, left, inside)
        return ending
    succeeded(done)
    if action == "train":
        trial.prepared.compare(method, trial.workdir, but=path)
    else:
        _check_nothing_lost(trial, left, inside)
    return EQUAL if _fingerprint(path) == damaged else REPAIRED


def _train(trial: Trial, method: str):
    return trial.prepared.train(method, trial.workdir)


def _use(trial: Trial, method: str):
    """Samples from a generator, evaluates a classifier; the result must be the usual one."""
    out = trial.folder / ("out.npz" if method == "funlora" else "out.json")
    done = use(method, trial.workdir, out)
    if done.code == 0 and (trial.workdir / "checkpoints" / "tasks" / "3").is_dir():
        _compare_use(trial, method, out)
    return done


def use(method: str, workdir: Path, out: Path):
    """The command with which a user uses a run of `method`."""
    if method == "funlora":
        words = ("--per_class=2", "--num_steps=1", "--task=2")
        return command("sample", f"--workdir={workdir}", f"--out={out}", *words)
    return command("evaluate", f"--workdir={workdir}", f"--out={out}", "--after=2")


def _compare_use(trial: Trial, method: str, out: Path) -> None:
    kept = trial.prepared.folder / f"used by {method}{out.suffix}"
    if not kept.exists():
        succeeded(use(method, trial.prepared.at(method, "finished"), kept))
    if _content(out) != _content(kept):
        raise Fault("what the run gives differs from what the undamaged one gives")


def _content(path: Path):
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with np.load(path) as arrays:
        return {name: (a.shape, a.tobytes()) for name, a in arrays.items()}


def _target(trial: Trial) -> Path:
    """A file of the run: first one of its folders or files at the top, checkpoints more often."""
    tops = [path.name for path in trial.workdir.iterdir() if path.name not in _IGNORED]
    top = trial.workdir / trial.pick(sorted([*tops, "checkpoints", "checkpoints", "results.json"]))
    files = sorted(path for path in top.rglob("*") if path.is_file())
    if top.name == "checkpoints":  # a task has many small files: its parts alike
        parts = sorted({path.relative_to(top).parts[:3] for path in files})
        chosen = top.joinpath(*trial.pick(parts))
        files = [path for path in files if path.is_relative_to(chosen)]
    return top if top.is_file() else trial.pick(files)


def _names(inside: Path) -> tuple[str, ...]:
    """What a line may call a damaged file: its path, or the save that it is a part of."""
    parts = inside.parts
    if parts[0] == "checkpoints" and len(parts) > 2:
        # A stray copy of a part gets the highest number, and the line names that number.
        return (f"{parts[1]}/{parts[2]}", str(inside), "does not belong to this run")
    return (inside.name,) if len(parts) == 1 else (str(inside), inside.name)


def _check_nothing_lost(trial: Trial, left: dict, inside: Path) -> None:
    now = contents(trial.workdir)
    for name, digest in left.items():
        part = Path(name).parts
        if part[0] in _IGNORED or Path(name) == inside:
            continue
        if part[0] == "checkpoints" and part[1:2] == ("running",):
            continue  # the older of two states inside a task may go
        if name not in now:
            raise Fault(f"{name} is gone")
        if part[0] == "checkpoints" and now[name] != digest:
            raise Fault(f"{name} has changed")


def _fingerprint(path: Path):
    if path.is_symlink():
        return "link", os.readlink(path)
    if path.is_file():
        return "file", path.read_bytes()
    return ("other", path.stat().st_mode) if path.exists() else ("nothing",)


def _ways(path: Path) -> tuple:
    ways = (delete, empty, cut, flip, garbage, folder, fifo, dangling, swap, longer, stray)
    if path.suffix in (".json", ".jsonl") or path.name in ("metadata", "_METADATA"):
        return (*ways, other_type, other_type, other_type, nonsense)
    return (*ways, other_array, other_array, other_array) if path.suffix == ".npz" else ways


def delete(path, _):
    """The file is gone."""
    path.unlink()


def empty(path, _):
    """Its content is gone."""
    path.write_bytes(b"")


def cut(path, random):
    """Its end is missing."""
    content = path.read_bytes()
    path.write_bytes(content[: random.randint(0, max(len(content) - 1, 0))])


def flip(path, random):
    """One bit has changed."""
    content = bytearray(path.read_bytes())
    if content:
        place = random.randrange(len(content))
        content[place] ^= 1 << random.randrange(8)
        path.write_bytes(content)
        return f"bit of byte {place}"
    return ""


def garbage(path, random):
    """Other bytes of the same length."""
    path.write_bytes(random.randbytes(path.stat().st_size))


def longer(path, random):
    """Bytes after its end."""
    path.write_bytes(path.read_bytes() + random.randbytes(100))


def folder(path, _):
    """A folder in its place."""
    path.unlink()
    path.mkdir()


def fifo(path, _):
    """A pipe in its place: opening it would wait for ever."""
    path.unlink()
    os.mkfifo(path)


def dangling(path, _):
    """A link to nothing."""
    path.unlink()
    path.symlink_to("nothing-here")


def swap(path, random):
    """A brother's content, such as that of another task."""
    brothers = [p for p in path.parent.parent.rglob(f"*{path.suffix}") if p.is_file() and p != path]
    if not brothers:
        return empty(path, random)
    brother = random.choice(sorted(brothers))
    path.write_bytes(brother.read_bytes())
    return f"by {brother.name}"


def stray(path, random):
    """A copy under a name that should not be there."""
    name = random.choice(("0", "7", "04", "4", "x", "task_99.npz", "-1", "99999999999999999999"))
    source = path.parent if "checkpoints" in path.parts else path
    other = source.with_name(name)
    if not other.exists():
        (shutil.copytree if source.is_dir() else shutil.copy)(source, other)
    return f"{other.parent.name}/{name}"


def nonsense(path, random):
    """Valid JSON of another kind."""
    path.write_text(
        random.choice(("[]", "{}", "null", "3", '"x"', "NaN", "[[[[]]]]", '{"a": 1e999}'))
    )


def other_type(path, random):
    """One value of a JSON file becomes one of another type."""
    first, *rest = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    value = json.loads(first)
    holder, key, where = {"": value}, "", []
    while (
        isinstance(holder[key], dict | list) and holder[key] and (random.random() < 0.8 or not key)
    ):
        holder = holder[key]
        key = random.choice(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
        where.append(str(key))
    others = (None, -1, 2**70, 1.5, "x", [], {}, True, [1, [2]], "\u001b[31m", {"a": {}}, 1e300)
    holder[key] = random.choice([o for o in others if type(o) is not type(holder[key])])
    new = value if where else holder[""]
    path.write_text("\n".join([json.dumps(new), *rest]) + "\n")
    return f"{'.'.join(where)} = {holder[key]!r}"


def other_array(path, random):
    """One array of an npz file has another shape, type or values, or is missing."""
    with np.load(path) as file:
        arrays = dict(file)
    name = random.choice(sorted(arrays))
    array = arrays[name]
    new = random.choice((
        lambda: array.astype("U8"),
        lambda: array.astype(np.float64) * np.nan,
        lambda: array.astype(object),
        lambda: array[..., None],
        lambda: array.reshape(-1),
        lambda: array[:0],
        lambda: np.concatenate([array, array]) if array.ndim else array,
        lambda: array.astype(np.complex64),
        lambda: np.zeros_like(array),
        lambda: None,
    ))()  # fmt: skip
    if new is None:
        del arrays[name]
    else:
        arrays[name] = new
    np.savez(path, **arrays)
    return f"{name}: {'gone' if new is None else f'{new.dtype} {new.shape}'}"
