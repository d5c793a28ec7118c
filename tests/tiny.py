"""A run of seconds for whole-program tests: six classes of 8x8 patterns in three tasks.

Its network has one level: compiling is nearly all of a run.
"""

from pathlib import Path

import numpy as np

from flcl import settings
from flcl.settings import bridge

CLASSES = 6


def write_data(path: Path, per_class: int = 24, seed: int = 0) -> Path:
    """Six noisy but different patterns as an `npz:` source."""
    generator = np.random.default_rng(seed)
    patterns = generator.integers(0, 256, (CLASSES, 8, 8, 1))

    def split(count):
        labels = np.repeat(np.arange(CLASSES), count)
        noise = generator.normal(0, 20, (len(labels), 8, 8, 1))
        images = np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)
        return images, labels

    train_images, train_labels = split(per_class)
    test_images, test_labels = split(8)
    np.savez(
        path,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=np.array(["ant", "bee", "cat", "dog", "eel", "fox"]),
    )
    return path


def part(whole: Path, ids: list[int], path: Path, names=None) -> Path:
    """The classes `ids` of an `npz:` source, as one of their own; names: other ones for them."""
    with np.load(whole) as arrays:
        arrays = dict(arrays)
    names = arrays["class_names"][ids] if names is None else np.array(names)
    kept = {"class_names": names}
    for half in ("train", "test"):
        rows = np.isin(arrays[f"{half}_labels"], ids)
        kept[f"{half}_images"] = arrays[f"{half}_images"][rows]
        kept[f"{half}_labels"] = np.searchsorted(ids, arrays[f"{half}_labels"][rows])
    np.savez(path, **kept)
    return path


def write_domains(path: Path) -> Path:
    """The six patterns in two domains, as they are and inverted; the second has half the images."""
    with np.load(write_data(path)) as arrays:
        both = dict(arrays)
    for part in ("train", "test"):
        images, labels = both[f"{part}_images"], both[f"{part}_labels"]
        half = slice(None, None, 2)
        both[f"{part}_images"] = np.concatenate([images, 255 - images[half]])
        both[f"{part}_labels"] = np.concatenate([labels, labels[half]])
        both[f"{part}_domains"] = np.repeat([0, 1], [len(labels), len(labels[half])])
    np.savez(path, **both, domain_names=np.array(["ink", "oil"]))
    return path


def settings_of(data: Path, method: str = "funlora", **changes) -> settings.GeneratorRun:
    """Settings of a tiny run; `changes` are dotted keys with `__` for the dot."""
    values = {
        "name": "tiny",
        "data.source": f"npz:{data}",
        "stream.tasks": "3",
        "model.width": 8,
        "model.multipliers": (1,),
        "model.blocks": 1,
        "model.attention": (),
        "model.head_channels": 16,
        "sample.solver": "euler",
        "sample.num_steps": 2,
        "sample.chunk": 8,
        "judge.width": 4,
        "judge.stages": 1,
        "judge.epochs": 2.0,
        "judge.batch_size": 32,
        "judge.learning_rate": 0.02,
        "judge.crop": 0,
        "judge.images_per_class": 8,
        "runtime.save_every": 100,
        "runtime.log_every": 2,
        "runtime.progress": False,
    }
    for phase in ("phase1", "phase2"):
        values |= {
            f"{phase}.steps": 6,
            f"{phase}.batch_size": 16,
            f"{phase}.warmup_steps": 2,
            f"{phase}.learning_rate": 1e-2,
            f"{phase}.dropout": 0.1,
        }
    if method == "funlora":  # few convolutions, by few functions: compiling is nearly all of a run
        values |= {"adapter.layers": "0-3", "adapter.functions": 2}
    if method in ("ddgr", "guide"):
        values |= {"guide.width": 4, "guide.stages": 1}
    if method == "guide":
        values |= {"guide.every": 2}
    if method == "jdcl":
        values |= {"jdcl.hidden": 8}
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    run = bridge.defaults(method)
    run.update_from_flattened_dict(values)
    return bridge.freeze(run)


def run_of(data: Path, method: str, **changes) -> settings.Run:
    """Settings of a tiny run of a generator or of FM-LoRA."""
    make = classifier_of if method == "fmlora" else settings_of
    return make(data, method, **changes)


def classifier_of(data: Path, method: str = "fmlora", **changes) -> settings.ClassifierRun:
    """Settings of a tiny classifier run on a ViT with random weights."""
    values = {
        "name": "tiny",
        "data.source": f"npz:{data}",
        "data.channels": 3,
        "stream.tasks": "3",
        "model.variant": "Pico/4",
        "train.epochs": 2.0,
        "train.batch_size": 16,
        "train.learning_rate": 1e-2,
        "train.head_learning_rate": 1e-2,
        "train.min_crop": 0.8,
        "train.eval_batch_size": 16,
        "runtime.save_every": 100,
        "runtime.log_every": 2,
        "runtime.progress": False,
    }
    values |= {"lora.rank": 4, "lora.blocks": "0-1", "bottleneck.width": 8}
    values |= {"align.epochs": 1.0, "align.batch_size": 16}
    if method not in ("frozen", "class_mean", "first_session"):
        values["head"] = "linear"  # solved heads answer every image of these patterns right
    if method == "fmlora":
        # As the paper describes it: every part of the method takes part.
        values |= {"rank.selector": "centred", "rank.candidates": (1, 2, 4), "prompt.tokens": 2}
    known = dict(bridge.keys(bridge.run_class(method)))
    values = {name: value for name, value in values.items() if name in known}
    values |= {name.replace("__", "."): value for name, value in changes.items()}
    run = bridge.defaults(method)
    run.update_from_flattened_dict(values)
    return bridge.freeze(run)


def both_of(data: Path, method: str = "fmlora", **changes) -> settings.Combined:
    """Settings of a tiny generator and of a tiny classifier with `changes`."""
    return settings.Combined(
        generator=settings_of(data), classifier=classifier_of(data, method, **changes)
    )


def memory_of(workdir: Path):
    """What a run has learned so far: the arrays of its method."""
    import flcl  # late: it loads JAX

    run = flcl.open_run(workdir)
    return run._memory(run.learned[-1])
