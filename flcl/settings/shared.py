"""What every run has: its data, its tasks, and how it is executed."""

import dataclasses
from typing import Literal

from flcl.settings.keys import key, section


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Where images come from and what shape they take."""

    source: str = key("digits", "digits | fashion16 | folder:PATH | npz:PATH | tfds:NAME")
    image_size: int = key(8, "height and width in pixels after the antialiased resize")
    channels: Literal[1, 3] = key(1, "1 = grey, 3 = RGB; every image is converted")
    resize: bool = key(True, "False: an image of another size is an error instead")
    test_fraction: float = key(0.2, "share hashed into the test set when a folder has no split")
    tfds_dir: str = key(".data/tfds", "where prepared TFDS data sets lie")
    manual_dir: str = key(".data/manual", "official archives to prepare TFDS data sets from")
    memory_gib: float = key(4.0, "decoded images are kept as uint8 up to this size, per split")
    flip: bool = key(False, "random horizontal flip while training")
    train_per_class: int = key(0, "training images kept per class and domain; 0 = all")
    test_per_class: int = key(0, "test images kept per class and domain; 0 = all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """Which classes arrive when."""

    scenario: Literal["cil", "dil"] = key(
        "cil", "cil: new classes in every task; dil: all classes, a new domain in every task"
    )
    class_order: str = key("natural", "natural | seed:N | explicit list such as 3,1,0,2")
    domain_order: str = key("natural", "dil: natural | seed:N | names such as photo,sketch")
    tasks: str = key(
        "5", "number of equal tasks, or classes per task such as 4,2,2,2; dil: domains"
    )
    joint: bool = key(False, "train on all classes at once: the upper bound")
    capacity: int = key(0, "rows in the class bank; 0 = exactly the classes of the data")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """How a run is executed. None of these keys changes a result, so a resume may change them."""

    fsdp: int = key(1, "devices that share parameters and optimiser state; the rest is data")
    save_every: int = key(1_000, "steps between saves inside a task")
    log_every: int = key(50, "steps between metric records")
    steps_per_call: int = key(1, "optimiser steps in one call: more for small models")
    threads: int = key(4, "threads that decode images")
    prefetch: int = key(4, "batches prepared ahead")
    progress: bool = key(True, "progress bars")
    compile_cache: str = key("", "folder of compiled programs; empty = ~/.cache/flcl, off = none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The keys that every method shares."""

    name: str = key("run", "title of pictures and tables")
    method: str = key("", "the method")
    seed: int = key(0, "all randomness derives from (seed, stream name, task, step)")
    data: Data = section(Data)
    stream: Stream = section(Stream)
    runtime: Runtime = section(Runtime)
