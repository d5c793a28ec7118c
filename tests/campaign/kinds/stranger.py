"""A workdir that someone else prepared: nothing outside it may change, nothing in it may run."""

import json
import shutil
from pathlib import Path

from campaign.kinds.damaged import use
from campaign.trial import EQUAL, Fault, Trial, contents, one_line, quiet


def stranger(trial: Trial) -> str:
    """Plants one trap in a finished or half-finished run and uses it."""
    method, start = trial.pick(("funlora", "fmlora")), trial.pick(("finished", "inside 3"))
    trial.prepared.copy(method, start, trial.workdir)
    outside = trial.folder / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious\n")
    plant, action = trial.pick(_PLANTS), trial.pick(("train", "use"))
    planted = plant(trial.workdir, outside, trial)
    trial.note(f"{method} at {start!r}: {plant.__name__} {planted}, then {action}")
    before = contents(outside)
    if action == "train":
        done = trial.prepared.train(method, trial.workdir)
    else:
        suffix = "npz" if method == "funlora" else "json"
        done = use(method, trial.workdir, trial.folder / f"out.{suffix}")
    after = contents(outside)
    if after != before:
        changed = sorted({*before, *after} - {n for n in before if before[n] == after.get(n)})
        raise Fault(f"files outside the workdir changed: {changed}\n{done.told()}")
    if (trial.folder / "ran").exists():
        raise Fault(f"code of the workdir was run\n{done.told()}")
    if done.code:
        return one_line(done)
    quiet(done)
    return EQUAL


def _edited(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def compile_cache(workdir, outside, _):
    """Compiled programs from, and into, a folder that the run names."""

    def change(config):
        config["runtime"]["compile_cache"] = str(outside)

    _edited(workdir / "config.json", change)
    return ""


def linked_folder(workdir, outside, trial):
    """A folder of the run is a link to another place that has the same content."""
    names = [p.relative_to(workdir) for p in sorted(workdir.rglob("*")) if p.is_dir()]
    some = [n for n in names if len(n.parts) < 4]
    name = trial.pick(some)
    shutil.copytree(workdir / name, outside / "copy")
    shutil.rmtree(workdir / name)
    (workdir / name).symlink_to(outside / "copy")
    return str(name)


def linked_file(workdir, outside, trial):
    """A file that the run writes or reads is a link to a file elsewhere."""
    names = [p.relative_to(workdir) for p in sorted(workdir.rglob("*")) if p.is_file()]
    top = trial.pick(sorted({n.parts[0] for n in names}))
    name = trial.pick(n for n in names if n.parts[0] == top)
    shutil.copy(workdir / name, outside / "copy")
    (workdir / name).unlink()
    (workdir / name).symlink_to(outside / "copy")
    return str(name)


def temporary_link(workdir, outside, trial):
    """The temporary name under which a file is written is a link to a precious file."""
    name = trial.pick(("results.json", "config.json", "stream.json", "timing.json", "report.html"))
    (workdir / f".{name}.tmp").symlink_to(outside / "precious")
    return name


def control_characters(workdir, _, trial):
    """Names that would move the cursor, recolour the screen or forge a line."""
    name = trial.pick(("\x1b[2J\x1b[H", "a\nerror: forged", "\x07\x9b31m", "\u202egnp.exe", "a\rb"))
    file = trial.pick(("stream.json", "results.json", "config.json"))

    def change(value):
        if "class_names" in value:
            value["class_names"][0] = name
        if "name" in value:
            value["name"] = name

    _edited(workdir / file, change)
    return f"{name!r} in {file}"


def pickled(workdir, _, trial):
    """Arrays that are pickles, which would run code when they are loaded."""
    import numpy as np

    class Bomb:
        def __reduce__(self):
            return Path.touch, (trial.folder / "ran",)

    array = np.empty(1, object)
    array[0] = Bomb()
    for path in sorted(workdir.glob("samples/*.npz")) + sorted(workdir.glob("features/*.npz")):
        with np.load(path) as file:
            names = list(file)
        np.savez(path, **{name: array for name in names}, allow_pickle=True)
    return ""


def other_paths(workdir, outside, trial):
    """Names with `..` where a file name or a number is expected."""
    key = trial.pick(("class_names", "name", "task_names"))

    def change(value):
        if key in value:
            value[key] = [f"../../outside/{n}" for n in value[key]] if key != "name" else "../x"

    for file in ("stream.json", "results.json", "config.json"):
        if (workdir / file).exists():
            _edited(workdir / file, change)
    return key


_PLANTS = (
    compile_cache,
    linked_folder,
    linked_folder,
    linked_file,
    linked_file,
    temporary_link,
    control_characters,
    pickled,
    other_paths,
)
