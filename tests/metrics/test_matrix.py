import json

import numpy as np
import pytest

from flcl.metrics import matrix as am

NAN = np.nan
# Three tasks; group sizes 10, 30, 60. Worked by hand below.
R = np.array([[0.9, NAN, NAN], [0.6, 0.8, NAN], [0.5, 0.9, 0.4]])
N = np.array([10, 30, 60])
A = [0.9, (6 + 24) / 40, (5 + 27 + 24) / 100]  # 0.9, 0.75, 0.56
B = [0.9, 0.7, 0.6]


def test_image_weighted_numbers():
    np.testing.assert_allclose(am.accuracy_per_task(R, N), A)
    assert am.last_accuracy(R, N) == pytest.approx(0.56)
    assert am.average_incremental_accuracy(R, N) == pytest.approx((0.9 + 0.75 + 0.56) / 3)


def test_task_mean_numbers():
    np.testing.assert_allclose(am.accuracy_per_task_task_mean(R), B)
    assert am.last_accuracy_task_mean(R) == pytest.approx(0.6)
    assert am.average_incremental_accuracy_task_mean(R) == pytest.approx((0.9 + 0.7 + 0.6) / 3)


def test_forgetting_and_backward_transfer():
    np.testing.assert_allclose(am.forgetting_per_group(R), [0.4, -0.1, NAN])
    assert am.forgetting(R) == pytest.approx((0.4 - 0.1) / 2)
    assert am.backward_transfer(R) == pytest.approx(((0.5 - 0.9) + (0.9 - 0.8)) / 2)


def test_forgetting_looks_at_the_best_earlier_row_and_transfer_at_the_first():
    up_and_down = np.array([[0.5, NAN, NAN], [0.8, 0.6, NAN], [0.7, 0.6, 0.9]])
    assert am.forgetting(up_and_down) == pytest.approx((0.1 + 0.0) / 2)
    assert am.backward_transfer(up_and_down) == pytest.approx((0.2 + 0.0) / 2)


def test_public_log_curve():
    """SD-LoRA, CIFAR100, 10 tasks: its log prints 92.05 and 87.26 for this curve."""
    curve = np.array([97.3, 96.35, 95.67, 93.85, 92.5, 91.45, 89.97, 88.7, 87.46, 87.26]) / 100
    matrix = np.where(np.tri(10, dtype=bool), curve[:, None], NAN)
    result = am.summary(matrix, np.full(10, 1000))
    assert round(100 * result["average_incremental_accuracy"], 2) == 92.05
    assert round(100 * result["last_accuracy"], 2) == 87.26
    np.testing.assert_allclose(result["accuracy_per_task"], curve)


def test_joint_training_has_one_row_and_no_forgetting():
    result = am.summary([[0.9, 0.8, 0.7]], N)
    assert result["last_accuracy"] == pytest.approx((9 + 24 + 42) / 100)
    assert result["average_incremental_accuracy"] == result["last_accuracy"]
    assert result["last_accuracy_task_mean"] == pytest.approx(0.8)
    assert result["forgetting"] is None and result["backward_transfer"] is None


def test_unfinished_run():
    result = am.summary(R[:2], N)
    assert result["last_accuracy"] == pytest.approx(0.75)
    assert result["forgetting"] == pytest.approx(0.3)
    assert result["forgetting_per_group"] == [pytest.approx(0.3), None, None]


def test_summary_is_strict_json_and_complete():
    text = json.dumps(am.summary(R, N), allow_nan=False)
    assert json.loads(text)["accuracy_per_task"] == pytest.approx(A)
    public = {name for name in dir(am) if name.startswith(("last_", "average_", "accuracy_per_"))}
    assert public <= set(json.loads(text))


def test_lists_round_trip():
    lists = am.to_lists(R)
    assert lists[0] == [0.9, None, None]
    np.testing.assert_array_equal(am.from_lists(lists), R)
    assert am.summary(lists, N) == am.summary(R, N)


@pytest.mark.parametrize(
    ("matrix", "counts", "words"),
    [
        ([[97.3]], [1], "divide percentages by 100"),
        ([[0.5, 0.5], [None, None]], [1, 1], "the last row needs a value"),
        ([[0.5, 0.5]], [1], "expected 2 positive"),
        ([[0.5, 0.5]], [1, 0], "expected 2 positive"),
        ([], [], "expected \\[tasks, groups\\]"),
    ],
)
def test_bad_input_is_named(matrix, counts, words):
    with pytest.raises(ValueError, match=words):
        am.summary(matrix, counts)
