"""What a generator draws after each task: stored, drawn beside real images, and side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from flcl.report import kept, reading
from flcl.report.pictures import plots
from flcl.runs.results import Results
from flcl.storage import npz
from flcl.storage.seals import Seals, digest

KEPT = 10
"""Number of samples of each class that are stored after a task."""
ROWS, COLUMNS = 20, 4
"""Classes of a picture, and images of each class after a task."""
BEFORE_AFTER_COLUMNS = 8
"""The same where there are two tasks only."""

Samples = Sequence[Mapping[int, np.ndarray]]


def keep(workdir: Path, seals: Seals, index: int, pictures, results: Results) -> None:
    """Stores the samples after task `index`, and draws them beside real images.

    pictures: `generated` and `real` images uint8 [n, H, W, C] of each learned label.
    """
    labels = sorted(pictures.generated)
    count = min(KEPT, *(len(pictures.generated[label]) for label in labels))
    images = np.stack([pictures.generated[label][:count] for label in labels])
    names = [results.class_names[label] for label in labels]
    name = kept.samples_name(index, ".png")
    title = f"{reading.title(results)} · after task {index}"
    real = _stacked(pictures.real, labels, images.shape[2:])
    path = workdir / name
    plots.plot_samples(images, names, path, real=real, title=title)
    seals.note(name, digest(path.read_bytes()))
    arrays = {"images": images, "labels": np.array(labels)}
    seals.write(kept.samples_name(index, ".npz"), npz.to_bytes(arrays))


def draw(workdir: Path, results: Results, unplanned: Sequence[int]) -> None:
    """Draws `samples/over_tasks.png`; if there are many classes, some of them.

    A run whose newest task is among the numbers `unplanned` also gets `samples/before_after.png`:
    what it drew before and after that task, where its new classes are marked. A run that stored the
    samples of no task, or of its first task only, gets no picture.
    """
    total = len(results.matrix)
    try:
        stored = [
            kept.read_samples(workdir, task, len(results.class_names))
            for task in range(1, total + 1)
        ]
    except FileNotFoundError:
        return
    if total < 2:
        return
    names, title = list(results.class_names), reading.title(results)
    plots.plot_samples_over_tasks(
        _some(stored, COLUMNS),
        names,
        workdir / kept.OVER_TASKS,
        title=f"{title} · the same classes after every task",
    )
    if total in unplanned:
        before, after = stored[-2:]
        marked = [
            f"{name} (new)" if label in after.keys() - before.keys() else name
            for label, name in enumerate(names)
        ]
        plots.plot_samples_over_tasks(
            _some(stored[-2:], BEFORE_AFTER_COLUMNS),
            marked,
            workdir / kept.BEFORE_AFTER,
            headings=[f"before task {total}", f"after task {total}, which was not planned"],
            title=title,
        )


def _some(tasks: Samples, count: int) -> list[dict[int, np.ndarray]]:
    """`count` images of each class; of many classes only `ROWS`, the first and last among them."""
    labels = sorted({label for task in tasks for label in task})
    rows = np.linspace(0, len(labels) - 1, min(len(labels), ROWS)).round().astype(int)
    shown = {labels[row] for row in rows}
    return [{k: v[:count] for k, v in task.items() if k in shown} for task in tasks]


def _stacked(
    images: Mapping[int, np.ndarray], labels: list[int], shape: tuple[int, ...]
) -> np.ndarray | None:
    """A few images of each label, uint8 [K, m, H, W, C]; missing images are white.

    None if there is no image.
    """
    count = max((len(images[label]) for label in labels if label in images), default=0)
    if not count:
        return None
    stacked = np.full((len(labels), count, *shape), 255, np.uint8)
    for row, label in enumerate(labels):
        for column, image in enumerate(images.get(label, ())):
            stacked[row, column] = image
    return stacked
