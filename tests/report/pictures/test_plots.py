import numpy as np
import pytest
from PIL import Image

from flcl.report.pictures import canvas, grids, plots


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def samples(classes: int, count: int, size: int, channels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 200, (classes, count, size, size, channels), dtype=np.uint8)


def find(picture: np.ndarray, part: np.ndarray) -> list[tuple[int, int]]:
    """Corners (row, column) where `part` lies in `picture`, pixel for pixel."""
    height, width = part.shape[:2]
    first = (picture[: -height + 1, : -width + 1] == part[0, 0]).all(-1)
    return [
        (y, x)
        for y, x in np.argwhere(first)
        if (picture[y : y + height, x : x + width] == part).all()
    ]


@pytest.mark.parametrize(("size", "channels", "scale"), [(8, 1, 6), (32, 3, 2), (64, 3, 1)])
def test_sample_grid_holds_every_image_in_sharp_squares(tmp_path, size, channels, scale):
    images = samples(3, 2, size, channels)
    plots.plot_samples(images, ["a", "$b$", "c"], tmp_path / "grid.png", title="T")
    picture = read(tmp_path / "grid.png")
    corners = {}
    for row in range(3):
        for column in range(2):
            tile = np.kron(images[row, column], np.ones((scale, scale, 1), np.uint8))
            (corners[row, column],) = find(picture, np.broadcast_to(tile, (*tile.shape[:2], 3)))
    step = size * scale + grids.GAP
    y, x = corners[0, 0]
    assert corners == {(r, c): (y + r * step, x + c * step) for r in range(3) for c in range(2)}
    for row in range(3):  # the name stands left of its row
        band = picture[y + row * step : y + row * step + size * scale, :x]
        assert (band < 128).any()


def test_real_images_stand_before_the_generated_ones(tmp_path):
    images, real = samples(3, 2, 8, 1), samples(3, 1, 8, 1, seed=1)
    plots.plot_samples(images, list("abc"), tmp_path / "grid.png", real=real)
    picture = read(tmp_path / "grid.png")

    def corner(image):
        tile = np.kron(image, np.ones((6, 6, 1), np.uint8))
        (place,) = find(picture, np.broadcast_to(tile, (48, 48, 3)))
        return place

    for row in range(3):
        (top, left), (same, right) = corner(real[row, 0]), corner(images[row, 0])
        assert top == same and left + 48 < right
    with pytest.raises(ValueError, match="3 class names for 2 rows of samples"):
        plots.plot_samples(images, list("abc"), tmp_path / "bad.png", real=real[:2])


def test_grid_over_tasks_leaves_unlearned_classes_blank(tmp_path):
    images = samples(4, 3, 8, 1)
    per_task = [{0: images[0], 1: images[1]}, {k: images[k][:2] for k in (1, 0, 2, 3)}]
    plots.plot_samples_over_tasks(per_task, list("abcd"), tmp_path / "over.png")
    picture = read(tmp_path / "over.png")

    def corners(label, index=0):
        tile = np.kron(images[label, index], np.ones((6, 6, 1), np.uint8))
        return find(picture, np.broadcast_to(tile, (48, 48, 3)))

    assert [len(corners(label)) for label in range(4)] == [2, 2, 1, 1]
    assert corners(0, index=2) == []  # only as many images as every class has
    (top, left), (_, right) = sorted(corners(0), key=lambda corner: corner[1])
    assert corners(3) == [(top + 3 * 51, right)]
    below = picture[top + 2 * 51 : top + 4 * 51 - 3, left : left + 99]
    assert (below == 255).all()


def test_many_classes_stand_side_by_side(tmp_path):
    plots.plot_samples(samples(100, 4, 8, 1), [str(i) for i in range(100)], tmp_path / "many.png")
    height, width, _ = read(tmp_path / "many.png").shape
    assert height < 1.5 * width and width < 3 * height


def test_names_of_any_kind_are_drawn(tmp_path):
    names = ["$x_1", "\\frac{", "日本", "n" * 200]
    plots.plot_samples(samples(4, 2, 8, 3), names, tmp_path / "names.png")
    assert read(tmp_path / "names.png").shape[1] < 400


@pytest.mark.parametrize(
    ("images", "names", "words"),
    [
        (np.zeros((2, 1, 8, 8, 1), np.float32), ["a", "b"], "expected uint8"),
        (np.zeros((2, 8, 8, 1), np.uint8), ["a", "b"], "expected uint8 \\[K, n, H, W, C\\]"),
        (np.zeros((2, 1, 8, 8, 4), np.uint8), ["a", "b"], "1 or 3 channels"),
        (np.zeros((2, 0, 8, 8, 1), np.uint8), ["a", "b"], "nothing to draw"),
        (np.zeros((2, 1, 8, 8, 1), np.uint8), ["a"], "1 class names for 2 rows"),
    ],
)
def test_bad_samples_are_named_and_leave_no_file(tmp_path, images, names, words):
    with pytest.raises(ValueError, match=words):
        plots.plot_samples(images, names, tmp_path / "bad.png")
    assert list(tmp_path.iterdir()) == []


def test_no_samples_at_all(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.plot_samples_over_tasks([{}, {}], [], tmp_path / "none.png")


def test_matrix_colours_follow_the_values(tmp_path, results):
    plots.plot_matrix([[1.0, None], [0.5, 0.0]], tmp_path / "m.png", names=["a", "b"], title="t")
    picture = read(tmp_path / "m.png").astype(int)
    deep = find_colour(picture, (18, 41, 107))  # the end of the scale: 100 %
    pale = find_colour(picture, (244, 247, 251))  # its beginning: 0 %
    assert deep.mean(0)[0] < pale.mean(0)[0] and deep.mean(0)[1] < pale.mean(0)[1]
    plots.plot_matrix(results["matrix"], tmp_path / "three.png")
    plots.plot_matrix(results["matrix"][-1:], tmp_path / "joint.png")
    assert read(tmp_path / "joint.png").shape[0] < read(tmp_path / "three.png").shape[0]


def find_colour(picture: np.ndarray, colour) -> np.ndarray:
    places = np.argwhere(np.abs(picture - np.array(colour)).max(-1) <= 3)
    assert len(places) > 100
    return places


def test_accuracy_curve_shows_the_image_weighted_mean(tmp_path, results, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.update(figure=figure))
    plots.plot_accuracy_curve(
        results["matrix"], results["test_counts"], tmp_path / "c.png", ceiling=0.977, title="T",
        names=["cats", "$dogs$", "cows"],
    )  # fmt: skip
    (axes,) = drawn["figure"].axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    wanted = [90, 100 * 22 / 30, 100 * 38.5 / 60]
    np.testing.assert_allclose(lines["all learned classes"].get_ydata(), wanted)
    np.testing.assert_allclose(lines["cats"].get_ydata(), [90, 80, 75])
    np.testing.assert_allclose(lines[r"\$dogs\$"].get_ydata(), [np.nan, 70, 65])
    whole, groups = drawn["figure"].legends[::-1]
    assert [text.get_text() for text in groups.get_texts()] == ["cats", r"\$dogs\$", "cows"]
    assert [text.get_text() for text in whole.get_texts()] == [
        "all learned classes",
        "the same judge trained on real images",
    ]
    np.testing.assert_allclose(lines["the same judge trained on real images"].get_ydata(), 97.7)
    low, high = axes.get_ylim()
    assert low <= 60 and high >= 100 and axes.get_title("left") == "T"


def test_training_curves_are_one_per_task(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.update(figure=figure))
    records = [
        {"task": task, "step": step, "phase": "phase2", "loss": 1 / step}
        for task in (1, 2)
        for step in (2, 1)
    ]
    records += [
        {"task": 1, "step": 2, "phase": "evaluation", "loss": 5.0},
        {"task": 1, "step": 3, "phase": "phase1", "loss": None},
    ]
    plots.plot_training(records, tmp_path / "loss.png", names=["cat, dog", "hen & co"])
    (legend,) = drawn["figure"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["cat, dog", "hen & co"]
    curves = [line for line in drawn["figure"].axes[0].get_lines() if len(line.get_xdata())]
    assert [line.get_xdata().tolist() for line in curves] == [[1, 2], [1, 2]]
    np.testing.assert_allclose(curves[0].get_ydata(), [1, 0.5])
    assert {line.get_marker() for line in curves} == {"o"}  # few points are seen one by one


def test_of_many_curves_some_are_named(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.update(figure=figure))
    matrix = [[0.5 if j <= t else None for j in range(40)] for t in range(40)]
    plots.plot_accuracy_curve(matrix, [1] * 40, tmp_path / "c.png")
    named = [text.get_text() for text in drawn["figure"].legends[0].get_texts()]
    assert named == [f"task {j}" for j in range(1, 41, 3)]
    records = [{"task": t, "step": 1, "phase": "phase1", "loss": 1.0} for t in range(1, 41)]
    plots.plot_training(records, tmp_path / "loss.png")
    assert [text.get_text() for text in drawn["figure"].legends[0].get_texts()] == named


def test_nothing_is_drawn_without_a_loss(tmp_path):
    plots.plot_training([], tmp_path / "loss.png")
    assert list(tmp_path.iterdir()) == []


def test_smoothing_is_a_centred_mean():
    values = np.arange(40.0) ** 2
    wanted = [values[max(0, i - 2) : i + 3].mean() for i in range(40)]
    np.testing.assert_allclose(plots._smooth(values, share=0.1), wanted)


def test_a_failed_write_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    plots.plot_samples(samples(1, 1, 8, 1), ["a"], path)
    before = path.read_bytes()

    def fail(self, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(canvas.FigureCanvasAgg, "print_png", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.plot_samples(samples(1, 1, 8, 1, seed=1), ["a"], path)
    assert path.read_bytes() == before
