import numpy as np
import pytest

from flcl.metrics import classification as c


def naive_top_k(scores, labels, k):
    hits = 0
    for row, label in zip(scores, labels, strict=True):
        order = sorted(range(len(row)), key=lambda j: (-row[j], j))[:k]
        hits += label in order and row[label] != -np.inf
    return hits / len(labels)


@pytest.mark.parametrize("k", [1, 2, 5, 7, 50])
def test_top_k_against_sorting(k):
    rng = np.random.default_rng(k)
    scores = rng.integers(0, 4, (60, 7)).astype(float)  # many ties
    scores[:, 5:] = -np.inf  # two classes that were not learned
    labels = rng.integers(0, 7, 60)
    assert c.top_k_accuracy(scores, labels, k) == pytest.approx(naive_top_k(scores, labels, k))


def test_top_one_is_argmax_and_top_all_is_one():
    scores = np.random.default_rng(0).integers(0, 3, (40, 6))
    labels = np.random.default_rng(1).integers(0, 6, 40)
    assert c.top_k_accuracy(scores, labels, 1) == np.mean(scores.argmax(1) == labels)
    assert c.top_k_accuracy(scores, labels, 6) == c.top_k_accuracy(scores, labels, 99) == 1.0


def test_unlearned_and_undefined_scores_are_never_right():
    scores = [[-np.inf, -np.inf], [0.0, -np.inf], [np.nan, np.nan]]
    assert c.top_k_accuracy(scores, [0, 1, 0], 2) == 0.0


@pytest.mark.parametrize(
    ("scores", "labels", "k", "message"),
    [
        ([[1.0, 2.0]], [0], 0, "k=0: must be at least 1"),
        ([[1.0, 2.0]], [2], 1, r"labels are in 2\.\.2: accepted are 0\.\.1"),
        ([[1.0, 2.0]], [0, 1], 1, r"labels have shape \(2,\): expected \[1\]"),
        (np.zeros((0, 3)), [], 1, r"scores have shape \(0, 3\)"),
    ],
)
def test_bad_scores_and_labels(scores, labels, k, message):
    with pytest.raises(ValueError, match=message):
        c.top_k_accuracy(scores, labels, k)


def test_confusion_and_per_class_accuracy_against_loops():
    rng = np.random.default_rng(2)
    labels, predicted = rng.choice([0, 1, 3], 80), rng.integers(0, 4, 80)
    wanted = [[0] * 4 for _ in range(4)]
    for truth, guess in zip(labels, predicted, strict=True):
        wanted[truth][guess] += 1
    found = c.confusion(predicted, labels, 4)
    assert found.tolist() == wanted and found.dtype.kind == "i"
    shares = [np.mean(predicted[labels == k] == k) for k in (0, 1, 3)]
    np.testing.assert_allclose(c.per_class_accuracy(found), [*shares[:2], np.nan, shares[2]])


def test_confusion_refuses_what_is_no_class():
    with pytest.raises(ValueError, match=r"predicted are in 0\.\.4: accepted are 0\.\.3"):
        c.confusion([0, 4], [0, 1], 4)
    with pytest.raises(ValueError, match=r"predicted have shape \(1,\): expected \[2\]"):
        c.confusion([0], [0, 1], 4)
    assert c.confusion([], [], 2).tolist() == [[0, 0], [0, 0]]


def test_drift_against_a_loop_and_closed_forms():
    rng = np.random.default_rng(3)
    old, new = rng.normal(size=(9, 5)), rng.normal(size=(9, 5))
    relative, cosine = [], []
    for a, b in zip(old, new, strict=True):
        relative.append(np.sqrt(sum((b - a) ** 2)) / np.sqrt(sum(a**2)))
        cosine.append(1 - sum(a * b) / np.sqrt(sum(a**2) * sum(b**2)))
    found = c.drift(old, new)
    assert found == {
        "relative": pytest.approx(np.mean(relative)),
        "cosine": pytest.approx(np.mean(cosine)),
    }
    assert c.drift(old, old) == {"relative": 0.0, "cosine": pytest.approx(0.0, abs=1e-15)}
    assert c.drift(old, 3 * old) == {
        "relative": pytest.approx(2.0),
        "cosine": pytest.approx(0.0, abs=1e-15),
    }
    assert c.drift(old, -old) == {"relative": pytest.approx(2.0), "cosine": pytest.approx(2.0)}


def test_drift_leaves_out_zero_references():
    old, new = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[5.0, 5.0], [0.0, 0.0]])
    assert c.drift(old, new) == {"relative": 1.0, "cosine": 1.0}
    assert np.isnan(list(c.drift(old[:1], new[:1]).values())).all()
    with pytest.raises(ValueError, match=r"features \(1, 2\) and their reference \(2, 2\)"):
        c.drift(old, new[:1])
