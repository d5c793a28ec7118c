"""`removed.json`: the classes that were removed from a run, and when."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from flcl import called, files
from flcl.devices import hosts
from flcl.storage import schema
from flcl.storage.seals import Seals, digest

NAME = "removed.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Removal:
    """One removed class. when: the day, such as 2026-11-28. task: the newest that trained it."""

    name: str
    task: int
    when: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Removals:
    """All removed classes by class id, as text.

    unfinished: whether the removal of some was stopped; then something of them may still be there.
    """

    classes: Mapping[str, Removal] = dataclasses.field(default_factory=dict)
    unfinished: bool = False

    @property
    def ids(self) -> tuple[int, ...]:
        """The class ids."""
        return tuple(map(int, self.classes))

    def of(self, class_id: int) -> Removal | None:
        """The removal of a class; None = it was not removed."""
        return self.classes.get(str(class_id))


def read(workdir: Path, seals: Seals, *, removing: bool = False) -> Removals:
    """What was removed from the run in `workdir`; raises `ValueError` for a file that is damaged.

    A missing file means that nothing was removed. If the digests of the run know one, it is
    refused, and so is a removal that was stopped: unless `removing`, which ends such a removal.
    """
    path = workdir / NAME
    try:
        content = files.read_bytes(path)
    except FileNotFoundError:
        if seals.holds(NAME, "") is False and not removing:
            raise ValueError(
                f"{path} is missing: bring a good copy back, or remove its classes again with "
                f"`{called.program('classes')} remove`"
            ) from None
        return Removals()
    if seals.holds(NAME, digest(content)) is False:
        raise ValueError(f"{path} has changed since flcl wrote it: bring a good copy back")
    removals = schema.from_json(Removals, files.read_json(path), str(path))
    if removals.unfinished and not removing:
        raise ValueError(
            f"workdir {workdir}: the removal of a class was stopped; repeat "
            f"`{called.program('classes')} remove --workdir={workdir}`, which ends it"
        )
    return removals


def ids_of_all(workdir: Path) -> tuple[int, ...]:
    """The ids of the classes that were removed; raises `ValueError` as `read` does.

    Every process calls this function; the first one reads, and the others get the same.
    """
    seals = Seals(workdir, writes=False)
    ids = hosts.read_by_main(lambda: read(workdir, seals).ids if workdir.is_dir() else ())
    return tuple(ids)


def write(seals: Seals, removals: Removals) -> None:
    """Writes the file, after its digest."""
    seals.write(NAME, files.as_json(schema.to_json(removals)))
