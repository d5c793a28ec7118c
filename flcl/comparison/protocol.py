"""Which keys must be equal before numbers of runs may stand in one table."""

from collections.abc import Iterator, Mapping, Sequence

from flcl import hints
from flcl.comparison.stored import StoredRun

# Of keys: the tasks, the data and its size, and how a generator is sampled and judged.
_SECTIONS = ("data", "sample", "judge")
_STREAM = ("stream.scenario", "stream.tasks")
# A key of the training in the section of the data, and what is measured beside the accuracy.
_OTHERS = ("data.flip", "judge.metrics")
# Keys of some methods, with the value that the samples of all others have.
_ABSENT = {"sample.guidance": 1.0}
# The SHA-256 of the images, where a run has one.
_IMAGES = "images"
_SHOWN = 3  # workdirs and keys that an error names


def keys(run: StoredRun, heads_are_named: bool) -> dict[str, object]:
    """What belongs to the protocol of a run, by dotted key.

    Entries of `stream.json` are those of its data. heads_are_named: every column names its head,
    so the head that answers does not matter.
    """
    known = run.keys()
    chosen = {name: value for name, value in known.items() if name in _STREAM}
    for name, value in known.items():
        if name.partition(".")[0] in _SECTIONS and name not in _OTHERS:
            chosen[name] = value
    if not run.head:
        chosen = {**_ABSENT, **chosen}
    chosen |= {f"stream.json:{name}": value for name, value in run.data.items()}
    if run.images:
        chosen[_IMAGES] = run.images
    if run.head and not heads_are_named:
        chosen["head"] = run.head
    return chosen


def check(runs: Sequence[StoredRun], heads_are_named: bool, allow: Sequence[str]) -> list[str]:
    """Raises `ValueError` for runs whose protocols differ; returns lines on what was allowed.

    heads_are_named: see `keys`. allow: keys that may differ, or groups of keys such as `sample`.
    The error names keys, values and workdirs.
    """
    protocols = [keys(run, heads_are_named) for run in runs]
    _check_names(allow, dict.fromkeys(key for each in protocols for key in each))
    differing = dict(_differing(protocols))
    refused = {key: values for key, values in differing.items() if not _allowed(key, allow)}
    if refused:
        key, values = next(iter(refused.items()))
        told = "; ".join(
            f"{value} in {_places(runs, values, value)}" for value in dict.fromkeys(values)
        )
        names = ", ".join(list(refused)[:_SHOWN]) + (", ..." if len(refused) > _SHOWN else "")
        advice = f"--allow={','.join(list(refused)[:_SHOWN])} mixes them on purpose"
        if key == "head":
            advice = "name a head in --columns, such as lda.last_accuracy, or " + advice
        raise ValueError(
            hints.brief(
                f"the runs have different protocols ({names}): {key} is {told}; {advice}", 400
            )
        )
    mixed = [f"{key} ({', '.join(dict.fromkeys(values))})" for key, values in differing.items()]
    return [f"Mixed on purpose: {'; '.join(mixed)}."] if mixed else []


def _check_names(allow: Sequence[str], known: Mapping[str, None]) -> None:
    """Raises `ValueError` for a name in `allow` that is no part of a protocol."""
    for name in allow:
        if name not in ("unfinished", "head") and not any(_allowed(key, [name]) for key in known):
            near = hints.did_you_mean(name, [*known, "unfinished", "head"])
            raise ValueError(
                f"--allow={hints.quoted(name)}: accepted are unfinished, and keys of the protocol "
                f"such as sample.solver or all of sample.{near}"
            )


def _differing(protocols: Sequence[Mapping]) -> Iterator[tuple[str, list[str]]]:
    """Every key that is not equal in all, with its value in each as a text."""
    for key in dict.fromkeys(key for each in protocols for key in each):
        values = [hints.quoted(each[key]) if key in each else "absent" for each in protocols]
        # Of images without a digest nothing is known; all other keys are in every run of a method.
        compared = [each for each in protocols if key != _IMAGES or key in each]
        if len({repr(each.get(key)) for each in compared}) > 1:
            yield key, values


def _places(runs: Sequence[StoredRun], values: Sequence[str], value: str) -> str:
    names = [str(run.workdir) for run, each in zip(runs, values, strict=True) if each == value]
    return ", ".join(names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else ""
    )


def _allowed(key: str, allow: Sequence[str]) -> bool:
    return any(key == each or key.startswith((f"{each}.", f"{each}:")) for each in allow)
