import numpy as np
import pytest
from PIL import Image

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


def test_accuracy_curve_with_both_heads(drawn, classified):
    plots.plot_accuracy_curve(
        classified["matrix"],
        classified["test_counts"],
        "x.png",
        class_mean=classified["class_mean"]["summary"]["accuracy_per_task"],
        domains=True,
    )
    (axes,) = drawn["figure"].axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    # (10 * .7 + 20 * .5) / 30, (10 * .65 + 20 * .55 + 30 * .70) / 60
    wanted = [80, 100 * 17 / 30, 100 * 38.5 / 60]
    np.testing.assert_allclose(lines["the same, class-mean head"].get_ydata(), wanted)
    assert "all learned domains" in lines
    heights = [text.xyann[1] for text in axes.texts]
    assert sorted(heights) == [-6, 6]  # equal last values stand above each other
