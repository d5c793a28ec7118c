"""What `results.json` holds, read in one place for tables, pictures and the page.

All functions take the content of `results.json`.
"""

SUMMARY = (
    ("last_accuracy", "last accuracy", "all classes after the last task"),
    ("average_incremental_accuracy", "average incremental accuracy", "mean over tasks"),
    ("forgetting", "forgetting", "best earlier accuracy minus the last one"),
    ("backward_transfer", "backward transfer", "last accuracy minus the first one"),
)
TASK_MEAN = (
    ("last_accuracy_task_mean", "last accuracy, task mean", "every task or domain counts alike"),
    ("average_incremental_accuracy_task_mean", "average incremental, task mean", "mean over tasks"),
)
REFERENCES = (
    ("ceiling", "the same judge trained on real images"),
    ("fidelity", "samples that this judge recognises"),
)
_SHORT = 14  # characters of a heading
DRIFTS = {"relative": "|f - f0| / |f0|", "cosine": "1 - cos(f, f0)"}


def title(results: dict) -> str:
    """One line that says which run this is: name, method, scenario and seed."""
    parts = [results[key] for key in ("name", "method", "scenario") if results.get(key)]
    return " · ".join([*parts, f"seed {results.get('seed', 'unknown')}"])


def is_classifier(results: dict) -> bool:
    """Whether the run is one of a continual classifier; else it is one of a generator."""
    return results.get("kind") == "classifier"


def has_domains(results: dict) -> bool:
    """Whether what is tested separately are domains."""
    return str(results.get("scenario", "")).startswith("dil")


def group_names(results: dict) -> list[str]:
    """What is tested separately: domains by name, tasks by their classes or else by number."""
    names = [str(name) for name in results.get("task_names") or ()]
    if names and (has_domains(results) or max(map(len, names)) <= _SHORT):
        return names
    return [f"task {j}" for j in range(1, len(results["tasks"]) + 1)]


def class_mean(results: dict) -> dict:
    """Matrix and summary of the class-mean head beside a linear one; empty when there is none."""
    found = results.get("class_mean") or {}
    return found if found.get("matrix") else {}


def overall(results: dict, name: str) -> float | None:
    """The "ceiling" (image-weighted) or "fidelity" (mean over classes) of a run; None = unknown."""
    if name == "fidelity":
        values = list(results.get("fidelity", {}).get("per_class", {}).values())
        return sum(values) / len(values) if values else None
    values, counts = results.get("ceiling"), results["test_counts"]
    if not values:
        return None
    return sum(v * n for v, n in zip(values, counts, strict=True)) / sum(counts)


def last_drift(results: dict) -> dict[str, list[float | None]]:
    """Kind of drift -> how far the features of each group moved until the newest task.

    Only kinds for which some group has moved.
    """
    drifts = {kind: rows[-1] for kind, rows in (results.get("drift") or {}).items() if rows}
    return {kind: row for kind, row in drifts.items() if any(row)}


def rank_probability(entry: dict) -> float | None:
    """p(r) of the rank that a task chose; None where nothing was to be chosen."""
    if not entry.get("probabilities"):
        return None
    by_rank = dict(zip(entry["candidates"], entry["probabilities"], strict=True))
    return by_rank.get(entry["rank"])


def percent(value: float | None) -> str:
    """0.9167 -> "91.7"; None -> an empty string."""
    return "" if value is None else f"{100 * value:.1f}"


def shorten(text: str, length: int = 24) -> str:
    """At most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
