import itertools

import numpy as np
import pytest
from PIL import Image

from flcl.report import reading
from flcl.report.pictures import plots, plots_classifier
from flcl.runs.results import from_json


@pytest.fixture
def drawn(monkeypatch):
    """The figure that would have been written, as `drawn["figure"]`."""
    kept = {}

    def keep(figure, path):
        kept["figure"] = figure

    monkeypatch.setattr(plots_classifier, "save", keep)
    monkeypatch.setattr(plots, "save", keep)
    return kept


def test_ranks_are_drawn_on_their_probabilities(drawn, classified):
    plots_classifier.plot_rank_selection(from_json(classified).rank_selection, "x.png", title="T")
    heat, complexity = drawn["figure"].axes[:2]
    (picture,) = heat.get_images()
    wanted = [[np.nan, 0.125, 0.0625], [np.nan, 0.625, 0.0625], [np.nan, 0.25, 0.875]]
    np.testing.assert_allclose(picture.get_array().filled(np.nan), wanted)
    assert [label.get_text() for label in heat.get_yticklabels()] == ["2", "4", "10"]
    rings = [(line.get_xdata()[0], line.get_ydata()[0]) for line in heat.get_lines()]
    assert rings == [(1, 2), (2, 1), (3, 2)]
    assert [text.get_text() for text in heat.texts] == ["10", "4", "10"]
    np.testing.assert_allclose(complexity.get_lines()[0].get_ydata(), [0.41, 0.287, 0.574])


def test_ranks_without_complexity_have_one_panel(drawn, classified):
    for entry in classified["rank_selection"]:
        entry |= {"complexity": None, "probabilities": None, "rank": 3}
    plots_classifier.plot_rank_selection(from_json(classified).rank_selection, "x.png")
    (axes,) = drawn["figure"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2", "3", "4", "10"]
    assert [text.get_text() for text in axes.texts] == ["3"] * 3


def test_drift_has_a_line_for_each_group_that_could_move(drawn, classified):
    plots_classifier.plot_drift(classified["drift"], classified["task_names"], "x.png")
    relative, cosine = drawn["figure"].axes
    lines = relative.get_lines()
    assert [line.get_label() for line in lines] == ["photo", "art_painting"]
    np.testing.assert_allclose(lines[0].get_ydata(), [0.0, 0.125, 0.25])
    np.testing.assert_allclose(lines[1].get_ydata(), [np.nan, 0.0, 0.375])
    np.testing.assert_allclose(cosine.get_lines()[1].get_ydata(), [np.nan, 0.0, 0.07])


def test_drift_of_a_first_task_is_not_drawn(tmp_path):
    plots_classifier.plot_drift({"relative": [[0.0, None]]}, ["a", "b"], tmp_path / "drift.png")
    assert list(tmp_path.iterdir()) == []


def test_confusion_is_normalised_by_the_true_class(drawn):
    matrix = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    plots_classifier.plot_confusion(matrix, ["a", "$b$", "c"], "x.png")
    axes = drawn["figure"].axes[0]
    shown = axes.get_images()[0].get_array().filled(np.nan)
    np.testing.assert_allclose(shown, [[75, 25, 0], [np.nan] * 3, [50, 0, 50]])
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "75.0", (1, 0): "25.0", (0, 2): "50.0", (2, 2): "50.0"}
    assert len(axes.get_yticklabels()) == 3


@pytest.mark.parametrize(("count", "named"), [(50, 50), (51, 26), (200, 50), (345, 50)])
def test_confusion_names_as_many_classes_as_there_is_room_for(drawn, count, named):
    names = [f"class {i}" for i in range(count)]
    plots_classifier.plot_confusion(np.eye(count, dtype=int), names, "x.png")
    labels = [label.get_text() for label in drawn["figure"].axes[0].get_yticklabels()]
    step = -(-count // 50)
    assert labels == names[::step] and len(labels) == -(-count // step) <= named


def test_confusion_keeps_the_size_of_a_page(tmp_path):
    for count in (2, 200):
        names = [f"a name that goes on and on {i}" for i in range(count)]
        plots_classifier.plot_confusion(np.eye(count), names, tmp_path / f"{count}.png")
    sizes = []
    for count in (2, 200):
        with Image.open(tmp_path / f"{count}.png") as picture:
            sizes.append(picture.size)
    small, large = sizes
    assert max(small) < 1000 and max(large) < 1800
    with pytest.raises(ValueError, match=r"confusion matrix \(2, 2\) with 1 names"):
        plots_classifier.plot_confusion(np.eye(2), ["a"], tmp_path / "bad.png")


def curves_of(drawn, ends, **options) -> tuple[dict, list]:
    """Lines by name and texts at the ends, for heads whose curves end at `ends` (in percent)."""
    heads = {name: [0.5, value / 100] for name, value in ends.items()}
    matrix = [[0.5, None], [next(iter(ends.values())) / 100] * 2]
    plots.plot_accuracy_curve(matrix, [10, 10], "x.png", heads=heads, **options)
    (axes,) = drawn["figure"].axes
    return {line.get_label(): line for line in axes.get_lines()}, axes.texts


def test_accuracy_curve_with_every_head(drawn, classified):
    results = from_json(classified)
    heads = {name: head.summary.accuracy_per_task for name, head in reading.heads(results).items()}
    plots.plot_accuracy_curve(
        results.matrix, results.test_counts, "x.png", heads=heads, domains=True
    )
    (axes,) = drawn["figure"].axes
    lines = axes.get_lines()
    strong, *thin = [line for line in lines if line.get_zorder() > 2]
    assert strong.get_label() == "all learned domains"
    np.testing.assert_allclose(strong.get_ydata(), [90, 100 * 22 / 30, 100 * 38.5 / 60])
    # class_mean: (10 * .7 + 20 * .5) / 30, (10 * .65 + 20 * .55 + 30 * .70) / 60; lda likewise
    wanted = [[80, 100 * 17 / 30, 100 * 38.5 / 60], [100, 100 * 21 / 30, 100 * 47.5 / 60]]
    np.testing.assert_allclose([line.get_ydata() for line in thin], wanted)
    assert all(line.get_linewidth() < strong.get_linewidth() / 1.5 for line in thin)
    assert len({line.get_color() for line in (strong, *thin)}) == 3
    texts = {text.get_text(): text for text in axes.texts}
    assert set(texts) == {"linear 64.2", "class mean 64.2", "lda 79.2"}
    (legend,) = [each for each in drawn["figure"].legends if not each.get_title().get_text()]
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["all learned domains", "the same, other heads"]


@pytest.mark.parametrize(
    "ends",
    [
        {"lda": 90.0, "linear": 90.0, "class mean": 90.0, "ridge": 90.0, "gaussian": 90.0},
        {"lda": 90.0, "linear": 20.0, "class mean": 89.0, "ridge": 91.5, "gaussian": 20.0},
        {"lda": 100.0, "linear": 100.0, "$ridge$": 0.0},
    ],
)
def test_names_at_the_ends_of_curves_do_not_touch(drawn, ends):
    _, texts = curves_of(drawn, ends)
    figure = drawn["figure"]
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent().extents for text in texts), key=lambda box: box[1])
    assert len(boxes) == len(ends)
    assert all(lower[3] <= upper[1] for lower, upper in itertools.pairwise(boxes))
    assert boxes[0][1] >= 0 and boxes[-1][3] <= figure.bbox.height  # inside the picture
    # In the order of the curves, and as near as possible: labels are moved up as much as down.
    order = sorted(texts, key=lambda text: text.get_window_extent().y0)
    values = [float(text.get_text().split()[-1]) for text in order]
    assert values == sorted(ends.values())
    assert sum(text.xyann[1] for text in texts) == pytest.approx(0, abs=1e-6)


def test_one_head_has_no_name_at_its_end(drawn):
    lines, texts = curves_of(drawn, {"lda": 70.0})
    assert [text.get_text() for text in texts] == ["70.0"]
    assert "all learned classes" in lines and "the same, other heads" not in lines
