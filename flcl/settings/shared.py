"""Keys that every run has: its data, its tasks, and how it is executed."""

import dataclasses
import typing
from typing import Literal

from flcl.settings.keys import above_up_to, at_least, between, from_to_below, key, section

# No machine has room for more images at once, and no training needs more passes: a larger value is
# a slip, and is refused before memory is asked for.
BATCH = at_least(1, 1_000_000)
EPOCHS = above_up_to(0, 1_000_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """The source of the images and their shape."""

    source: str = key(
        "digits", "digits | fashion16 (or fashion16:0-7) | folder:PATH | npz:PATH | tfds:NAME"
    )
    image_size: int = key(
        8, "height and width in pixels after the antialiased resize", at_least(1, 8192)
    )
    channels: Literal[1, 3] = key(1, "1 = grey, 3 = RGB; every image is converted")
    resize: bool = key(True, "False: an image of another size is an error instead")
    test_fraction: float = key(
        0.2, "share of images in the test set when a folder has no split", between(0, 1)
    )
    tfds_dir: str = key(".data/tfds", "where prepared TFDS data sets are stored", free=True)
    manual_dir: str = key(
        ".data/manual", "folder of official archives for TFDS data sets", free=True
    )
    memory_gib: float = key(
        4.0,
        "decoded images are kept in memory as uint8 up to this size, per split",
        at_least(0),
        free=True,
    )
    verify: Literal["full", "headers", "off"] = key(
        "full",
        "check of images before training, if they are not kept in memory: decode all, read only "
        "their headers, or none",
        free=True,
    )
    bad_images: Literal["error", "skip"] = key(
        "error", "unreadable images: an error that names them, or leave them out of the run"
    )
    train_per_class: int = key(0, "training images kept per class and domain; 0 = all", at_least(0))
    test_per_class: int = key(0, "test images kept per class and domain; 0 = all", at_least(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData(Data):
    """The data of a method that trains on images; the images may be augmented."""

    flip: bool = key(False, "random horizontal flip while training")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassStream:
    """The order of classes and their tasks."""

    # The value for a method without this key.
    domain_order = "natural"

    scenario: Literal["cil", "dil"] = key(
        "cil", "cil: new classes in every task; dil: all classes, a new domain in every task"
    )
    class_order: str = key("natural", "natural | seed:N | explicit list such as 3,1,0,2")
    tasks: str = key(
        "5",
        "number of equal tasks | classes of each, such as 4,2,2,2 | per:2 = two classes per task, "
        "the last task takes the remaining ones; dil: domains",
    )
    joint: bool = key(False, "train on all classes together: the upper bound")
    capacity: int = key(
        0,
        "classes that the model has room for at first; the room doubles when more come; 0 = 16",
        at_least(0, 1_000_000),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream(ClassStream):
    """The order of classes or domains and their tasks."""

    domain_order: str = key("natural", "dil: natural | seed:N | photo,sketch (names) | id:1,id:0")

    def check(self) -> None:
        """Raises `ValueError` for a domain order in a scenario without domains."""
        if self.scenario == "cil" and self.domain_order != "natural":
            raise ValueError(
                f"stream.domain_order={self.domain_order!r}: read only with stream.scenario=dil"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """How a run is executed. None of these keys changes a result, so a resume may change them.

    `minutes` decides only the lengths of a run that begins: see `flcl.runs.planned.plan`.
    """

    fsdp: int = key(
        1,
        "number of devices that share parameters and optimiser state",
        at_least(1),
        free=True,
    )
    save_every: int = key(1_000, "steps between saves inside a task", at_least(1), free=True)
    log_every: int = key(50, "steps between metric records", at_least(1), free=True)
    steps_per_call: int = key(
        1,
        "optimiser steps per compiled call; raise it for small models",
        at_least(1, 10_000),
        free=True,
    )
    threads: int = key(4, "threads that decode images", at_least(1, 1024), free=True)
    prefetch: int = key(4, "batches prepared in advance", at_least(1, 1000), free=True)
    progress: bool = key(True, "show progress bars", free=True)
    minutes: float = key(
        0.0,
        "minutes in which a new run shall end: its first call measures its parts on this machine "
        "and lowers steps, epochs and the judge's images to what fits; later calls keep them. "
        "0 = nothing is lowered",
        at_least(0, 100_000),
        free=True,
    )
    compile_cache: str = key(
        "", "folder for compiled programs; empty = ~/.cache/flcl, off = no cache", free=True
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The keys that every method shares.

    The type of `method` lists the methods that a settings class is for. A class without such a
    list cannot be built. Any other method raises `ValueError`.
    """

    name: str = key("run", "title in pictures and tables", free=True)
    method: str = key("", "the method")
    seed: int = key(
        0,
        "all random numbers derive from (seed, stream name, task, step)",
        from_to_below(0, 2**32, "0 or more and below 2**32"),
    )
    data: Data = section(Data)
    stream: ClassStream = section(ClassStream)
    runtime: Runtime = section(Runtime)

    def __post_init__(self):
        methods = methods_of(type(self))
        if self.method not in methods:
            names = ", ".join(methods) or "none, because it is a base class"
            raise ValueError(f"method={self.method!r}: {type(self).__name__} accepts {names}")

    def check(self) -> None:
        """Raises `ValueError`, with the dotted key, for values that do not fit each other."""


def methods_of(cls: type[Run]) -> tuple[str, ...]:
    """The methods that a settings class is for; empty for a base class."""
    return typing.get_args(cls.__dataclass_fields__["method"].type)
