"""Grids of samples in whole pixels, so every image pixel is a sharp square."""

import contextlib
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from flcl.report.reading import shorten
from flcl.shown import shown

TILE = 48
"""Smallest side of a magnified image, in pixels of the picture."""

GAP, BLOCK_GAP, MARGIN = 3, 28, 14
MAX_ROWS = 25
_DPI = 100
_TITLE_LINE, _TITLE_CHARACTER = 18, 9.6  # pixels of the bold title at that resolution
_FONT = FontProperties(size=9)
_INK, _SOFT = "#1f2933", "#7b8794"


def samples(
    images: np.ndarray, names: Sequence[str], title: str = "", real: np.ndarray | None = None
) -> Figure:
    """Figure of `plots.plot_samples`; raises `ValueError` for shapes that do not fit."""
    kinds = {"": _checked(images)}
    if real is not None:
        kinds = {"real test images": _checked(real), "generated": kinds[""]}
    for stack in kinds.values():
        if len(names) != len(stack):
            raise ValueError(f"{len(names)} class names for {len(stack)} rows of samples")
    columns = _columns(len(names), sum(stack.shape[1] for stack in kinds.values()))
    rows = math.ceil(len(names) / columns)
    blocks = []
    for start in range(0, len(names), rows):
        shown = slice(start, start + rows)
        for number, (heading, stack) in enumerate(kinds.items()):
            labels = list(names[shown]) if number == 0 else None
            blocks.append((labels, heading, mosaic(stack[shown])))
    return _page(blocks, title)


def over_tasks(
    images: Sequence[Mapping[int, np.ndarray]],
    names: Sequence[str],
    headings: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Figure of `plots.plot_samples_over_tasks`."""
    headings = headings or [f"after task {number}" for number in range(1, len(images) + 1)]
    stacks = [stack for task in images for stack in task.values()]
    if not stacks:
        raise ValueError("no samples of any task: there is nothing to draw")
    count = min(len(stack) for stack in stacks)
    learned = sorted({label for task in images for label in task})
    blank = np.full((count, *stacks[0].shape[1:]), 255, np.uint8)
    blocks = []
    for heading, task in zip(headings, images, strict=True):
        rows = np.stack([task[label][:count] if label in task else blank for label in learned])
        labels = None if blocks else [str(names[label]) for label in learned]
        blocks.append((labels, heading, mosaic(_checked(rows))))
    return _page(blocks, title)


def mosaic(images: np.ndarray) -> np.ndarray:
    """uint8 [K, n, H, W, C] -> one RGB array with K rows of images, magnified by an integer."""
    rows, columns, height, width, channels = images.shape
    scale = max(1, math.ceil(TILE / max(height, width)))
    images = np.repeat(np.repeat(images, scale, axis=2), scale, axis=3)
    images = np.broadcast_to(images, (*images.shape[:-1], 3)) if channels == 1 else images
    step_y, step_x = height * scale + GAP, width * scale + GAP
    canvas = np.full((rows * step_y - GAP, columns * step_x - GAP, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            y, x = row * step_y, column * step_x
            tile = images[row, column]
            canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return canvas


@contextlib.contextmanager
def any_script():
    """Suppresses the warning for letters that the font lacks; they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def plain(text: str) -> str:
    """Text in which control characters are escaped and dollar signs are no mathematics."""
    return shown(text).replace("$", r"\$")


def _page(blocks: list[tuple[Sequence[str] | None, str, np.ndarray]], title: str) -> Figure:
    """Blocks (row labels, heading, mosaic) side by side; None = labels of the block before."""
    names = [[shorten(shown(str(n))) for n in labels] if labels else [] for labels, _, _ in blocks]
    texts = [_text_width(part) if part else -8 for part in names]
    lefts, x = [], MARGIN
    for text, (_, _, picture) in zip(texts, blocks, strict=True):
        lefts.append(x + text + 8)
        x = lefts[-1] + picture.shape[1] + (BLOCK_GAP if len(texts) > 1 else 0)
    width = x - (BLOCK_GAP if len(texts) > 1 else 0) + MARGIN
    lines = textwrap.wrap(shown(title), max(12, int((width - 2 * MARGIN) / _TITLE_CHARACTER)))
    top = MARGIN + _TITLE_LINE * len(lines) + (8 if lines else 0)
    top += 18 if any(head for _, head, _ in blocks) else 0
    height = top + max(m.shape[0] for _, _, m in blocks) + MARGIN
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")

    def write(x: float, y: float, text: str, **style) -> None:
        figure.text(x / width, 1 - y / height, plain(text), **{"color": _INK, **style})

    for number, line in enumerate(lines):
        y = MARGIN + number * _TITLE_LINE
        write(MARGIN, y, line, fontsize=11, weight="bold", va="top")
    for left, labels, (_, heading, picture) in zip(lefts, names, blocks, strict=True):
        rows, columns = picture.shape[:2]
        box = (left / width, 1 - (top + rows) / height, columns / width, rows / height)
        axes = figure.add_axes(box)
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        if heading:
            write(left, top - 6, heading, fontsize=9, color=_SOFT)
        step = (rows + GAP) / max(1, len(labels))
        for row, name in enumerate(labels):
            middle = top + row * step + (step - GAP) / 2
            write(left - 8, middle, name, fontproperties=_FONT, ha="right", va="center")
    return figure


def _text_width(names: Sequence[str]) -> int:
    """Width of the longest name in pixels."""
    renderer = FigureCanvasAgg(Figure(dpi=_DPI)).get_renderer()
    with any_script():
        sizes = [renderer.get_text_width_height_descent(name, _FONT, False) for name in names]
    return math.ceil(max(width for width, _, _ in sizes))


def _columns(classes: int, per_class: int) -> int:
    """Number of columns that gives a picture of many classes about the shape of a page."""
    if classes <= MAX_ROWS:
        return 1
    return max(math.ceil(classes / MAX_ROWS), round(math.sqrt(classes / (1.6 * per_class))))


def _checked(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim != 5 or images.shape[-1] not in (1, 3) or images.dtype != np.uint8:
        raise ValueError(
            f"samples are {images.dtype} {images.shape}: expected uint8 [K, n, H, W, C] with 1 or "
            "3 channels"
        )
    if 0 in images.shape:
        raise ValueError(f"samples have shape {images.shape}: there is nothing to draw")
    return images
