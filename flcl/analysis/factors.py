"""What the factors of learned classes show: ranks, weights and frequencies, and importance.

Old classes never change, so the factors after the newest task tell those after every task.
"""

import functools

import jax
import numpy as np

from flcl import called
from flcl.adapters import functional
from flcl.analysis import drawing
from flcl.analysis.frame import Analysis, Frame
from flcl.metrics.ranks import effective_rank, numerical_rank
from flcl.report.writers import read_metrics
from flcl.runs.opened.generator import GeneratorOnDisk
from flcl.runs.opened.inside import ClassFactors, class_factors, without_factors

MOST_CLASSES = 20
"""Classes whose ranks are computed: of more, as many evenly spaced ones."""

_WINDOW = 15 / 65  # the share of the convolutions that the paper's window 40-54 has


def ranks(run: GeneratorOnDisk) -> Analysis:
    """Effective and numerical rank of F_y in every adapted convolution: see `metrics.ranks`."""
    factors, adapter = class_factors(run), run.settings.adapter
    picks = _evenly(len(factors.names), MOST_CLASSES)
    rows = []
    for convolution in factors.convolutions:
        chosen = jax.tree.map(lambda v: v[np.asarray(picks)], factors.rows[convolution["name"]])
        matrices = functional.lift_layer(chosen, adapter.family)
        both = np.asarray(effective_rank(matrices)), np.asarray(numerical_rank(matrices))
        for place, effective, numerical in zip(picks, *both, strict=True):
            about = (factors.tasks[place], factors.names[place])
            layer = (convolution["index"], convolution["name"], min(convolution["shape"][2:]))
            rows.append((*about, *layer, float(effective), int(numerical)))
    columns = ("task", "class", "index", "convolution", "largest_possible")
    data = Frame((*columns, "effective_rank", "numerical_rank"), rows)
    short = Frame(
        ("after task", "classes", "mean effective rank", "largest", "mean numerical rank"),
        [_of_tasks(data, task) for task in sorted(set(data.column("task")))],
    )
    title = f"Rank of F, {adapter.family}, p = {adapter.functions}"
    return Analysis(
        title,
        data,
        short,
        functools.partial(drawing.ranks, data, adapter.functions, title),
        "Effective rank: exp of the entropy of the singular values, divided by their sum (Roy & "
        "Vetterli 2007). A row has the classes up to its task. Inside a task: training_ranks.",
    )


def _of_tasks(data: Frame, task: int) -> tuple:
    """The means over all convolutions, and over the classes up to a task."""
    place = data.columns.index("task")
    known = Frame(data.columns, [row for row in data.rows if row[place] <= task])
    effective = known.column("effective_rank")
    numerical = float(np.mean(known.column("numerical_rank")))
    count = len(set(known.column("class")))
    return task, count, float(np.mean(effective)), max(effective), numerical


_RANK = "rank/"  # and the index of a convolution: see `FunLoRA.watched`


def training_ranks(run: GeneratorOnDisk) -> Analysis:
    """The effective rank of F while the tasks train, from the records of `adapter.record_ranks`.

    A row is a convolution at a step: the mean over the first classes of the task. Does the rank
    exceed p, and when?
    """
    adapter, names = run.settings.adapter, _convolutions(run)
    records = _ranked(run)
    data = Frame(
        ("task", "step", "index", "convolution", "effective_rank"),
        [
            (record["task"], record["step"], index, name, record[f"{_RANK}{index:02d}"])
            for record in records
            for index, name in names.items()
        ],
    )
    short = Frame(
        ("task", "steps", "mean at first", "mean at last", "largest", "above p from step"),
        [_of_training(task, records, adapter.functions) for task in _tasks(records)],
    )
    title = f"Effective rank of F in training, {adapter.family}, p = {adapter.functions}"
    draw = functools.partial(drawing.training_ranks, records, _RANK, adapter.functions, title)
    note = (
        "Means over convolutions and over the first classes of each task, of the averaged factors; "
        "largest: of any class and convolution; the last column: the first record in which it "
        "exceeds p."
    )
    return Analysis(title, data, short, draw, note)


def _of_training(task: int, records: list[dict], functions: int) -> tuple:
    curve = [record for record in records if record["task"] == task]
    means = [record["mean_rank"] for record in curve]
    above = [record["step"] for record in curve if record["max_rank"] > functions]
    largest = max(record["max_rank"] for record in curve)
    return task, curve[-1]["step"], means[0], means[-1], largest, min(above, default=None)


def _tasks(records: list[dict]) -> list[int]:
    return sorted({record["task"] for record in records})


def _convolutions(run: GeneratorOnDisk) -> dict[int, str]:
    each = run._setup.method.describe()["adapted_convolutions"]
    return {convolution["index"]: convolution["name"] for convolution in each}


def _ranked(run: GeneratorOnDisk) -> list[dict]:
    """The records of `metrics.jsonl` that have the ranks of all adapted convolutions."""
    names = ["mean_rank", "max_rank", *(f"{_RANK}{index:02d}" for index in _convolutions(run))]
    records = read_metrics(run.workdir / "metrics.jsonl")
    return [r for r in records if all(isinstance(r.get(name), int | float) for name in names)]


def without_training_ranks(run: GeneratorOnDisk) -> str:
    """Why a run has no ranks inside its tasks; empty if it has them."""
    if missing := without_factors(run):
        return missing
    if _ranked(run):
        return ""
    return "no ranks were recorded while it trained; --config.adapter.record_ranks=1 records them"


def alphas(run: GeneratorOnDisk) -> Analysis:
    """alpha_i and omega_i in every adapted convolution: mean and deviation over classes."""
    factors, family = class_factors(run), run.settings.adapter.family
    rows = []
    for convolution in factors.convolutions:
        layer = factors.rows[convolution["name"]]
        alpha, omega = (_over_classes(layer.get(name)) for name in ("alpha", "omega"))
        for i in range(layer["alpha"].shape[1]):
            both = alpha[i] + (omega[i] if omega else (None, None))
            rows.append((convolution["index"], convolution["name"], i + 1, *both))
    names = ("alpha", "alpha_deviation", "omega", "omega_deviation")
    data = Frame(("index", "convolution", "i", *names), rows)
    short = Frame(
        ("i", "mean alpha", "mean omega"),
        [_of_function(data, i) for i in sorted(set(data.column("i")))],
    )
    title = f"alpha_i and omega_i over convolutions, {family}, {len(factors.names)} classes"
    draw = functools.partial(drawing.alphas, data, title)
    note = "omega is empty for a family that does not learn it."
    return Analysis(title, data, short, draw, note)


def _over_classes(values: jax.Array | None) -> list[tuple[float, float]]:
    """Mean and standard deviation (n) over classes of each entry of [K, p]; empty for None."""
    if values is None:
        return []
    values = np.asarray(values, np.float64)
    return list(zip(values.mean(axis=0).tolist(), values.std(axis=0).tolist(), strict=True))


def without_alphas(run: GeneratorOnDisk) -> str:
    """Why a run has no alpha_i; empty if it has them."""
    family = run.settings.adapter.family
    return f"adapter.family={family} has no alpha_i" if family.startswith("vanilla") else ""


def _of_function(data: Frame, i: int) -> tuple:
    layers = data.where(i=i)
    omega = [value for value in layers.column("omega") if value is not None]
    return i, float(np.mean(layers.column("alpha"))), float(np.mean(omega)) if omega else None


def importance(run: GeneratorOnDisk, top: int = 0) -> Analysis:
    """The importance of every adapted convolution (F12), and what `adapter.layers=top:K` takes.

    top: K; 0 = as many as are adapted, or the share of the paper's window if all of them are.
    """
    factors, family = class_factors(run), run.settings.adapter.family
    first = [place for place, task in enumerate(factors.tasks) if task == factors.tasks[0]]
    # The score of a run is that of task 1, whose classes train together with the trunk.
    of_first = functional.importance(_of_classes(factors, first), family)
    of_all = functional.importance(factors.rows, family)
    places = sorted(of_first, key=lambda name: of_first[name][0], reverse=True)
    count = min(top or _window(run, len(places)), len(places))
    rows = [
        (
            each["index"], each["name"], *of_first[each["name"]], *of_all[each["name"]],
            places.index(each["name"]) + 1, int(places.index(each["name"]) < count),
        )
        for each in factors.convolutions
    ]  # fmt: skip
    names = ("score", "rms_deviation", "score_of_all_classes", "rms_deviation_of_all_classes")
    data = Frame(("index", "convolution", *names, "place", "chosen"), rows)
    chosen = data.where(chosen=1)
    short = Frame(
        ("place", "index", "convolution", "score", "score of all classes"),
        sorted(
            zip(
                *(chosen.column(n) for n in ("place", "index", "convolution", *names[::2])),
                strict=True,
            )
        ),
    )
    title = f"Importance of convolutions, adapter.layers={run.settings.adapter.layers}"
    draw = functools.partial(drawing.importance, data, title)
    note = (
        f"These are the convolutions that adapter.layers=top:{count}@{run.workdir} takes. Score: "
        "how much F differs between the classes of the first task, the largest = 1."
    )
    return Analysis(title, data, short, draw, note)


def parameters(run: GeneratorOnDisk) -> Analysis:
    """Last accuracy against the parameters and bytes of a class: the point of this run."""
    results, sizes = run.results, run._setup.method.describe()
    count = sizes["parameters_per_class"]
    columns = ("family", "layers", "parameters_per_class", "bytes_per_class", "trunk_parameters")
    adapter = run.settings.adapter
    accuracy = results.summary.last_accuracy if results else None
    row = (adapter.family, adapter.layers, count, 4 * count, sizes["trunk_parameters"], accuracy)
    data = Frame((*columns, "last_accuracy"), [row])
    short = Frame(("family", "layers", "numbers", "bytes", "trunk", "last accuracy"), [row])
    many = f"{called.program('compare')} --against=parameters.parameters_per_class"
    note = f"One point; {many} draws those of several runs."
    return Analysis("Last accuracy, and numbers and bytes of a class", data, short, None, note)


def _window(run: GeneratorOnDisk, adapted: int) -> int:
    whole = run.settings.adapter.layers == "all"
    return max(1, round(_WINDOW * adapted)) if whole else adapted


def _of_classes(factors: ClassFactors, places: list[int]) -> dict:
    return jax.tree.map(lambda v: v[np.asarray(places)], factors.rows)


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` of the places 0 .. count - 1, evenly spaced."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, most))})
