"""Words and numbers from `results.json` for tables, pictures and the page."""

import typing
from collections.abc import Mapping

from rich import filesize

from flcl import called
from flcl.runs.results import ClassifierResults, GeneratorResults, HeadResults, Results
from flcl.settings.classifier.heads import HEADS, SolvedHead

SUMMARY = (
    ("last_accuracy", "last accuracy", "all classes after the last task"),
    ("average_incremental_accuracy", "average incremental accuracy", "mean over tasks"),
    ("forgetting", "forgetting", "best earlier accuracy minus the last"),
    ("backward_transfer", "backward transfer", "last accuracy minus the first one"),
)
TASK_MEAN = (
    ("last_accuracy_task_mean", "last accuracy, task mean", "every task or domain counts alike"),
    ("average_incremental_accuracy_task_mean", "average incremental, task mean", "mean over tasks"),
)
REFERENCES = (
    ("ceiling", "the same judge trained on real images"),
    ("fidelity", "samples that this judge recognises"),
    ("recall", "test images that have a sample near them: the diversity"),
)
_SHORT = 14  # characters of a heading
_LISTED = 5  # groups that are named in a sentence
DRIFTS = {"relative": "moved, share of their length", "cosine": "turned, 1 - cosine"}

NOT_TESTED = "not tested"
"""The accuracy of a learned group without its test images, or with a class that was removed."""


def title(results: Results) -> str:
    """One line that identifies a run: name, method, scenario and seed."""
    words = filter(None, (results.name, results.method, results.scenario))
    return " · ".join([*words, f"seed {'unknown' if results.seed is None else results.seed}"])


def is_classifier(results: Results) -> bool:
    """Whether the run is that of a classifier; otherwise it is that of a generator."""
    return isinstance(results, ClassifierResults)


def has_domains(results: Results) -> bool:
    """Whether the groups that are tested separately are domains."""
    return results.scenario.startswith("dil")


def group_names(results: Results) -> list[str]:
    """Names of the groups: domains by name, tasks by their classes if short, else by number."""
    names = list(results.task_names)
    if names and (has_domains(results) or max(map(len, names)) <= _SHORT):
        return names
    return [f"task {j}" for j in range(1, len(results.tasks) + 1)]


def curve_names(results: Results) -> list[str]:
    """A name for the curve of each group: its number with its classes, or its domain."""
    if has_domains(results) and results.task_names:
        return [shorten(name) for name in results.task_names]
    names = results.task_names or ["" for _ in results.tasks]
    numbered = enumerate(names, start=1)
    return [shorten(f"task {j}: {name}" if name else f"task {j}") for j, name in numbered]


def heads(results: Results) -> dict[str, HeadResults]:
    """Every head of a run by name, the method's head first; empty for a generator.

    The others come in the order of `settings.classifier.heads.HEADS`. Files of older versions have
    the method's head and perhaps that of the class means.
    """
    if not isinstance(results, ClassifierResults):
        return {}
    known = dict(results.heads or {})
    if results.class_mean:
        known.setdefault("class_mean", results.class_mean)
    known[results.head] = HeadResults(matrix=results.matrix, summary=results.summary)
    # Names that this version does not know come last.
    place = dict(zip(HEADS, range(len(HEADS)), strict=True))
    names = sorted(
        known, key=lambda name: (name != results.head, place.get(name, len(HEADS)), name)
    )
    return {name: known[name] for name in names}


def other_heads(results: Results) -> dict[str, HeadResults]:
    """The heads by name whose answers are not those of the method; a generator has at most one."""
    own = getattr(results, "own_classifier", None)
    return {"own_classifier": own} if own else dict(list(heads(results).items())[1:])


def head_name(name: str) -> str:
    """The name of a head for people: "class_mean" -> "class mean"."""
    return name.replace("_", " ")


def whose_answers(results: Results) -> str:
    """Which head answers, how it learned, and how to ask another one; empty for a generator."""
    if not isinstance(results, ClassifierResults):
        return ""
    how = ""
    if results.head in HEADS:
        solved = results.head in typing.get_args(SolvedHead)
        how = "solved from statistics of all tasks" if solved else "trained task by task"
    answers = f"The answers are those of the head {results.head}{how and f', which was {how}'}."
    others = ", ".join(other_heads(results))
    if not others:
        return answers
    return f"{answers} {called.program('evaluate')} --head=NAME asks another head: {others}."


def statistics(sizes: Mapping) -> str:
    """Bytes of the statistics of all heads, such as "3.0 kB a class, 2.4 MB once".

    sizes: `statistics_bytes` from `describe` of a classifier: bytes by `per_class` and `once`.
    """
    pairs = (("per_class", "a class"), ("once", "once"))
    known = [(sizes[key], word) for key, word in pairs if isinstance(sizes.get(key), int)]
    return ", ".join(f"{filesize.decimal(size)} {word}" for size, word in known if size) or "none"


def overall(results: Results, name: str) -> float | None:
    """The "ceiling" (image-weighted), "fidelity" (mean over classes) or "recall" of a run.

    None = unknown.
    """
    if not isinstance(results, GeneratorResults):
        return None
    if name == "recall":
        return results.quality.all.recall if results.quality and results.quality.all else None
    if name == "fidelity":
        values = [value for value in results.fidelity.per_class.values() if value is not None]
        return sum(values) / len(values) if values else None
    pairs = zip(results.ceiling or (), results.test_counts, strict=False)
    weighted = [(value, count) for value, count in pairs if value is not None]
    total = sum(count for _, count in weighted)
    return sum(value * count for value, count in weighted) / total if total else None


def above_ceiling(results: Results) -> str:
    """A sentence that explains accuracies above the ceiling; empty if there are none."""
    if not isinstance(results, GeneratorResults) or not results.ceiling or not results.matrix:
        return ""
    pairs = enumerate(zip(results.matrix[-1], results.ceiling, strict=True), start=1)
    higher = {
        f"task {j}": value - top for j, (value, top) in pairs if value and top and value > top
    }
    if not higher:
        return ""
    count = len(higher)
    names = ", ".join(higher) if count <= _LISTED else f"{count} of {len(results.ceiling)} tasks"
    return (
        f"Accuracy above the ceiling ({names}; by at most {100 * max(higher.values()):.1f} points) "
        "is possible. The judge of the ceiling learns from the few real images of each class; the "
        "other judge learns from generated images, and there can be more of them. Each number also "
        "comes from only a few trained judges, and another random start gives a slightly different "
        "number."
    )


def last_drift(results: Results) -> dict[str, tuple[float | None, ...]]:
    """For each kind of drift: how far the features of each group moved until the newest task.

    Only kinds for which some group has moved are included.
    """
    if not isinstance(results, ClassifierResults):
        return {}
    kinds = {"relative": results.drift.relative, "cosine": results.drift.cosine}
    drifts = {kind: rows[-1] for kind, rows in kinds.items() if rows}
    return {kind: row for kind, row in drifts.items() if any(row)}


def drift_sentences(results: Results) -> list[str]:
    """Sentences about the groups whose features have moved most."""
    row = last_drift(results).get("relative", ())
    names = group_names(results)
    moved = sorted(((v, j) for j, v in enumerate(row) if v), key=lambda pair: (-pair[0], pair[1]))
    of = "the domain " if has_domains(results) else ""
    return [
        f"The features of the test images of {of}{names[j] if of else f'task {j + 1}'} have moved "
        f"by {100 * value:.0f} % of their length since the end of task {j + 1}."
        for value, j in moved[:_LISTED]
    ]


def percent(value: float | None) -> str:
    """0.9167 -> "91.7"; None -> an empty string; never "-0.0"."""
    return "" if value is None else f"{100 * value:z.1f}"


def tested(results: Results) -> list[tuple[str, ...]]:
    """The cells [T, G] of the accuracy matrix: a number, `NOT_TESTED`, or empty if not learned."""
    joint = results.scenario.endswith("(joint)")
    return [
        tuple(
            NOT_TESTED if value is None and (joint or group <= task) else percent(value)
            for group, value in enumerate(row)
        )
        for task, row in enumerate(results.matrix)
    ]


def gone(results: Results) -> str:
    """A sentence about groups that are not tested; empty if all are."""
    if not any(NOT_TESTED in row for row in tested(results)):
        return ""
    counts = results.summary.images_per_task or ()
    rests = f" The newest accuracy rests on {counts[-1]:,} images." if counts else ""
    return (
        f"{NOT_TESTED}: the test images were not there any more, or a class was removed. The "
        f"numbers over all classes count the tested ones.{rests}"
    )


def shorten(text: str, length: int = 24) -> str:
    """`text`, shortened to `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def ranks(results: Results) -> tuple[list[str], list[list[str]]] | None:
    """Headings, and a row for each task: its rank, what it was chosen from and what bases hold.

    Columns without any value are left out; None if the method has no ranks.
    """
    if not isinstance(results, ClassifierResults) or not results.rank_selection:
        return None
    columns: dict[str, list[str]] = {}

    def put(place: int, name: str, value: float | None, form: str = "z.3f") -> None:
        if value is not None:
            cells = columns.setdefault(name, [""] * len(results.rank_selection))
            cells[place] = format(value, form)

    for place, entry in enumerate(results.rank_selection):
        put(place, "task", entry.task, "d")
        put(place, "rank", entry.rank, "d")
        put(place, "complexity H", entry.complexity)
        put(place, "centred", entry.centred)
        put(place, "p(rank)", entry.probability)
        for rank, loss in zip(entry.candidates, entry.held_out or (), strict=False):
            put(place, f"loss of rank {rank}", loss)
        for after in results.diagnosis[entry.task - 1 : entry.task]:
            put(place, "columns of the bases", after.columns, "d")
            put(place, "coverage rho", after.coverage)
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]
