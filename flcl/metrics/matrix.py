"""The accuracy matrix of a task sequence and the numbers derived from it.

R[t, j] is the accuracy, between 0 and 1, after task t on the test images of group j; NaN if j is
not learned yet, or not tested, because its images were not there any more or a class was removed.
A row is a task that was trained, a column is a group that is tested separately, so joint training
has one full row. n_j is the number of test images of group j. Indices start at 1 in the formulae.
Every function also takes the matrix of an unfinished run (fewer rows).

The literature uses two means over groups; they differ if groups have different sizes. Names without
a suffix weight images equally (all correct / all images); names that end in `_task_mean` weight
groups equally.
"""

import numpy as np


def accuracy_per_task(matrix: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A_t = sum_j n_j R[t, j] / sum_j n_j over the groups tested after task t: [T]."""
    matrix, counts = _checked(matrix, counts)
    # A group that is not learned yet, or not tested, has no weight.
    weights = np.where(np.isnan(matrix), 0.0, counts[None, :])
    return _divided((np.nan_to_num(matrix) * weights).sum(axis=1), weights.sum(axis=1))


def accuracy_per_task_task_mean(matrix: np.ndarray) -> np.ndarray:
    """B_t = mean of R[t, j] over the groups tested after task t: [T]."""
    # Groups of different size: both means are printed (M11).
    values = _checked(matrix)[0]
    return _divided(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))


def last_accuracy(matrix: np.ndarray, counts: np.ndarray) -> float:
    """LA, also "Acc": A_T."""
    return float(accuracy_per_task(matrix, counts)[-1])


def last_accuracy_task_mean(matrix: np.ndarray) -> float:
    """B_T."""
    return float(accuracy_per_task_task_mean(matrix)[-1])


def average_incremental_accuracy(matrix: np.ndarray, counts: np.ndarray) -> float:
    """AIA, also "AAA": (1/T) sum_t A_t, over the rows with a value."""
    return _mean(accuracy_per_task(matrix, counts))


def average_incremental_accuracy_task_mean(matrix: np.ndarray) -> float:
    """(1/T) sum_t B_t, over the rows with a value."""
    return _mean(accuracy_per_task_task_mean(matrix))


def forgetting_per_group(matrix: np.ndarray) -> np.ndarray:
    """f_j = max over t < T of R[t, j], minus R[T, j]: [G], NaN for groups new in the last row.

    It is NaN, too, for a group that is not tested in the last row.

    It is negative if a group is better at the end than ever before (Chaudhry et al. 2018).
    """
    matrix, _ = _checked(matrix)
    # -inf where a group was not learned before the last row: it cannot be forgotten.
    best = np.where(np.isnan(matrix[:-1]), -np.inf, matrix[:-1]).max(axis=0, initial=-np.inf)
    return np.where(np.isinf(best), np.nan, best - matrix[-1])


def forgetting(matrix: np.ndarray) -> float:
    """F = mean of f_j over the groups tested before and in the last row; NaN if there is none."""
    return _mean(forgetting_per_group(matrix))


def backward_transfer(matrix: np.ndarray) -> float:
    """BWT = mean of R[T, j] - R[first row of j, j] over the groups learned before the last task.

    The first row of j is the row after the task that learned it (Lopez-Paz & Ranzato 2017). NaN
    if no group was learned before.
    """
    matrix, _ = _checked(matrix)
    # The argmax of booleans is the first True: the row after the task that learned the group.
    first = np.argmax(~np.isnan(matrix), axis=0)
    then = matrix[first, np.arange(matrix.shape[1])]
    return _mean(np.where(first < len(matrix) - 1, matrix[-1] - then, np.nan))


def tested_images(matrix: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The number of test images on which the accuracy after each task rests: [T]."""
    matrix, counts = _checked(matrix, counts)
    return np.where(np.isnan(matrix), 0, counts[None, :]).sum(axis=1).astype(int)


def summary(matrix: np.ndarray, counts: np.ndarray) -> dict:
    """All derived numbers by name, as JSON values: NaN is None, arrays are lists.

    matrix: [T, G] as above, or nested lists with None. counts: [G] test images per group.
    """
    matrix = from_lists(matrix) if isinstance(matrix, list) else np.asarray(matrix, float)
    values = {
        "last_accuracy": last_accuracy(matrix, counts),
        "last_accuracy_task_mean": last_accuracy_task_mean(matrix),
        "average_incremental_accuracy": average_incremental_accuracy(matrix, counts),
        "average_incremental_accuracy_task_mean": average_incremental_accuracy_task_mean(matrix),
        "forgetting": forgetting(matrix),
        "forgetting_per_group": forgetting_per_group(matrix),
        "backward_transfer": backward_transfer(matrix),
        "accuracy_per_task": accuracy_per_task(matrix, counts),
        "accuracy_per_task_task_mean": accuracy_per_task_task_mean(matrix),
        "images_per_task": tested_images(matrix, counts),
    }
    return {name: _jsonable(value) for name, value in values.items()}


def filled(row: list, groups: int) -> list:
    """A row of the matrix as a list, with None for the groups that are not learned yet."""
    return row + [None] * (groups - len(row))


def to_lists(matrix: np.ndarray) -> list[list[float | None]]:
    """The matrix as nested lists with None for NaN."""
    return [_jsonable(row) for row in np.asarray(matrix, float)]


def from_lists(rows: list[list[float | None]]) -> np.ndarray:
    """Inverse of `to_lists`."""
    return np.asarray([[np.nan if x is None else x for x in row] for row in rows], float)


def _checked(matrix, counts=None) -> tuple[np.ndarray, np.ndarray]:
    matrix = np.asarray(matrix, float)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"accuracy matrix has shape {matrix.shape}: expected [tasks, groups]")
    # Of a row between two others all images may be gone, if the run is tested again.
    if np.isnan(matrix[-1]).all():
        raise ValueError("accuracy matrix: the last row needs a value: nothing was tested")
    if np.nanmin(matrix) < 0 or np.nanmax(matrix) > 1:
        raise ValueError(
            f"accuracy matrix has values in {np.nanmin(matrix)}..{np.nanmax(matrix)}: accepted are "
            "0..1; divide percentages by 100"
        )
    counts = np.ones(matrix.shape[1]) if counts is None else np.asarray(counts, float)
    tested = ~np.isnan(matrix).all(axis=0)
    if counts.shape != tested.shape or (counts < 0).any() or (counts[tested] == 0).any():
        raise ValueError(
            f"test image counts {counts.tolist()}: expected {matrix.shape[1]} positive numbers, "
            "one per group; 0 only for a group that is not tested"
        )
    return matrix, counts


def _divided(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """sums / counts; NaN where the count is 0."""
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _jsonable(value):
    if np.ndim(value):
        return [_jsonable(x) for x in value]
    if isinstance(value, np.integer):
        return int(value)
    return None if np.isnan(value) else float(value)
