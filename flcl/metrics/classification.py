"""Numbers of a classifier besides the accuracy matrix: top-k, confusion and drift. Only NumPy."""

import numpy as np


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of the images whose label is among the k best scores.

    scores: [N, K], -inf for a class that is not learned and so is never right; labels: [N] int.
    Of equal scores the lower class comes first, as in argmax. k above K means K. Raises
    `ValueError` for k below 1, no images, and labels outside 0..K-1.
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores have shape {scores.shape}: expected [images, classes], not empty")
    if k < 1:
        raise ValueError(f"k={k}: must be at least 1")
    labels = _checked("labels", labels, scores.shape[1], len(scores))
    true = scores[np.arange(len(scores)), labels][:, None]
    before = np.arange(scores.shape[1])[None, :] < labels[:, None]
    # The rank of the label among the scores, without sorting.
    ahead = ((scores > true) | ((scores == true) & before)).sum(axis=1)
    # A label with the score -inf, or with NaN from a failed run, is never right.
    return float(np.mean((ahead < k) & (true[:, 0] > -np.inf)))


def confusion(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Number of images by true class (rows) and predicted class (columns): int [K, K].

    predicted, labels: [N] int. Raises `ValueError` for a value outside 0..num_classes-1.
    """
    labels = _checked("labels", labels, num_classes)
    predicted = _checked("predicted", predicted, num_classes, len(labels))
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def per_class_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Accuracy of each class from `confusion` [K, K]: [K] float, NaN for a class without images."""
    matrix = np.asarray(matrix)
    counts = matrix.sum(axis=1)
    empty = np.full(len(matrix), np.nan)
    return np.divide(np.diag(matrix), counts, out=empty, where=counts > 0)


def drift(reference: np.ndarray, features: np.ndarray) -> dict[str, float]:
    """How far features have moved from their reference: means over the images.

    reference, features: [N, d] of the same images, before and after. "relative": |f - f0| / |f0|;
    "cosine": 1 - cos(f, f0). Images whose reference is the zero vector are left out; NaN if no
    image is left. Raises `ValueError` if the shapes differ.
    """
    reference, features = np.asarray(reference, float), np.asarray(features, float)
    if reference.shape != features.shape or reference.ndim != 2:
        raise ValueError(
            f"features {features.shape} and their reference {reference.shape}: expected the same "
            "[images, width]"
        )
    kept = np.linalg.norm(reference, axis=1) > 0
    if not kept.any():
        return {"relative": float("nan"), "cosine": float("nan")}
    reference, features = reference[kept], features[kept]
    norms = np.linalg.norm(reference, axis=1)
    relative = np.linalg.norm(features - reference, axis=1) / norms
    # A zero feature has no direction; its cosine is 0, so its drift is 1.
    lengths = np.maximum(np.linalg.norm(features, axis=1), np.finfo(float).tiny)
    cosine = (features * reference).sum(axis=1) / (norms * lengths)
    return {"relative": float(relative.mean()), "cosine": float((1 - cosine).mean())}


def _checked(name: str, values: np.ndarray, num_classes: int, count: int | None = None):
    """`values` as int [N]; raises `ValueError` for a wrong shape, or a value that is no class."""
    values = np.asarray(values)
    if values.ndim != 1 or (count is not None and len(values) != count):
        wanted = "N" if count is None else count
        raise ValueError(f"{name} have shape {values.shape}: expected [{wanted}]")
    values = values.astype(int)
    if values.size and not 0 <= values.min() <= values.max() < num_classes:
        raise ValueError(
            f"{name} are in {values.min()}..{values.max()}: accepted are 0..{num_classes - 1}"
        )
    return values
