"""Tasks that were not planned: each has a source of its own, matched with the run by names."""

import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from flcl import hints
from flcl.data.base import Source, Split
from flcl.data.sequence.stream import TaskStream


@dataclasses.dataclass(frozen=True, eq=False)
class LearnedTask:
    """A task that a run learned although it was not planned.

    Attributes:
      spec: its source, in the form of `data.source`.
      class_names: the names of its new classes; empty in "dil".
      domain_name: the name of its domain; empty in "cil".
      changed: the keys that were changed for it, with their values.
      date: when it was begun, such as 2026-01-31.
      source: its images, with the class ids and domain ids of the run; None = they are not here.
      skipped: the names of unreadable images that are left out; None = such images are an error.
      split_rule: `Source.split_rule` of its source.
      noise: of classes that were imported: for each, the label that chooses its noise, which is
        that of the run in which it was trained. Empty = their own labels.
    """

    spec: str
    class_names: tuple[str, ...] = ()
    domain_name: str = ""
    changed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    date: str = ""
    source: Source | None = None
    skipped: tuple[str, ...] | None = None
    split_rule: str = ""
    noise: tuple[int, ...] = ()


def matched(
    spec: str,
    source: Source,
    stream: TaskStream,
    class_names: Sequence[str],
    domain_names: Sequence[str],
    distinct: Sequence[str] = (),
) -> LearnedTask:
    """The next task of a run, from `source`.

    In "cil" it has the classes that the run does not know; images of known ones are not used. In
    "dil" it is a new domain of known classes.

    stream, class_names, domain_names: those of the run so far, names by id. distinct: names that
    are new although they differ from a known one only in case or Unicode form. Raises `ValueError`
    if there is nothing new, for such a name that is not in `distinct`, for a domain that is known
    already, for a class that was removed, and in "dil" for new classes or several domains.
    """
    _check_removed(spec, source, stream, class_names)
    new = [name for name in source.class_names if name not in class_names]
    check_alike(spec, new, class_names, distinct)
    if stream.scenario == "dil":
        if new:
            raise ValueError(
                f"{spec}: class {hints.quoted(new[0])} is not one of the {len(class_names)} "
                "classes of this run, and with stream.scenario=dil a task is a new domain of the "
                "same classes; leave it out of the data"
            )
        name = _domain_name(spec, source, domain_names)
        domain = len(domain_names)
        task = LearnedTask(spec, domain_name=name)
    elif not new:
        some = ", ".join(map(hints.quoted, source.class_names[:5]))
        more = " and more" if source.class_names[5:] else ""
        raise ValueError(
            f"{spec}: no new class, this run knows {some}{more} already; a task needs a class "
            "that it does not know"
        )
    else:
        domain, task = 0, LearnedTask(spec, class_names=tuple(new))
    every = (*class_names, *task.class_names)
    return dataclasses.replace(
        task,
        source=in_run(source, every, domain, new or source.class_names),
        skipped=source.skipped,
        split_rule=source.split_rule,
    )


def in_run(source: Source, class_names: Sequence[str], domain: int, used: Sequence[str]) -> Source:
    """`source` with the class ids of a run; images of other classes than `used` get the id -1.

    class_names: the classes of the run by id; all of `used` are among them. domain: the id of the
    domain of all images.
    """
    ids = {name: number for number, name in enumerate(class_names)}
    table = np.array([ids[n] if n in used else -1 for n in source.class_names], np.int32)

    def half(split: Split) -> Split:
        return Split(split.images, table[split.labels], np.full_like(split.labels, domain))

    halves = {"train": half(source.train), "test": half(source.test)}
    return dataclasses.replace(source, **halves, class_names=tuple(class_names), domain_names=())


def _check_removed(
    spec: str, source: Source, stream: TaskStream, class_names: Sequence[str]
) -> None:
    """A removed class is neither learned again in silence nor counted as known."""
    gone = {class_names[stream.class_order[label]] for label in stream.removed}
    advice = "leave it out of the data"
    if stream.scenario == "cil":
        advice += ", or give it another name to learn it as a new class"
    for name in source.class_names:
        if name in gone:
            raise ValueError(
                f"{spec}: class {hints.quoted(name)} was removed from this run; {advice}"
            )


def check_alike(
    spec: str, new: Sequence[str], known: Sequence[str], distinct: Sequence[str]
) -> None:
    """Raises `ValueError` for a new name that differs from a known one only in case or form.

    spec: the source in messages. distinct: the new names that may; `ValueError` for other ones.
    """
    for name in distinct:
        if name not in new:
            raise ValueError(
                f"distinct={hints.quoted(name)}: {spec} has no new class of this name; it has "
                f"{', '.join(map(hints.quoted, new[:5])) or 'none'}"
            )
    plain = {_plain(name): name for name in known}
    for name in new:
        twin = plain.get(_plain(name))
        if twin is not None and name not in distinct:
            raise ValueError(
                f"{spec}: class {hints.quoted(name)} differs from the known class "
                f"{hints.quoted(twin)} only in case or Unicode form: is it the same? If so, give "
                f"it the name of the known one; if it is another class, say distinct={name}"
            )


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


def _domain_name(spec: str, source: Source, known: Sequence[str]) -> str:
    """The name of the one domain of a source, or the last part of its path."""
    if len(source.domain_names) > 1:
        raise ValueError(
            f"{spec}: has {len(source.domain_names)} domains "
            f"({', '.join(source.domain_names[:5])}), and one is learned at a time; give the "
            "folder of one of them"
        )
    kind, _, place = spec.partition(":")
    name = source.domain_names[0] if source.domain_names else PurePath(place).stem or kind
    alike = {_plain(each): each for each in known}
    if _plain(name) in alike:
        raise ValueError(
            f"{spec}: domain {hints.quoted(name)} is known already, as "
            f"{hints.quoted(alike[_plain(name)])}; a task needs a new domain, with a name of its "
            "own"
        )
    return name
