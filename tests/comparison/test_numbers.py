"""The statistics of a cell against closed forms and tables."""

import math

import pytest

from flcl.comparison import numbers


def test_mean_and_deviation_of_the_runs_that_have_a_value():
    cell = numbers.over_runs([2.0, None, 4.0, 9.0])
    assert cell[:3] == (pytest.approx(5.0), pytest.approx(math.sqrt(13.0)), 3)
    assert numbers.over_runs([3.0])[:3] == (3.0, None, 1)
    assert numbers.over_runs([None]) == numbers.Cell()


# Student's t, two-sided 95 %, from any table.
@pytest.mark.parametrize(("n", "quantile"), [(2, 12.706205), (3, 4.302653), (5, 2.776445)])
def test_the_interval_of_a_paired_difference(n, quantile):
    differences = [1.0 + 0.5 * i for i in range(n)]
    reference = [10.0 * i for i in range(n)]
    cell = numbers.paired([r + d for r, d in zip(reference, differences, strict=True)], reference)
    mean = sum(differences) / n
    sd = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
    half = quantile * sd / math.sqrt(n)
    assert (cell.mean, cell.sd, cell.n) == (pytest.approx(mean), pytest.approx(sd), n)
    assert (cell.low, cell.high) == (
        pytest.approx(mean - half, abs=1e-5),
        pytest.approx(mean + half, abs=1e-5),
    )


@pytest.mark.parametrize(
    ("differences", "shown"),
    [
        ([5.0, 5.1, 4.9], True),
        ([-5.0, -5.1, -4.9], True),
        ([5.0, -5.0, 1.0], False),  # the interval contains 0
        ([5.0, 5.1], False),  # two pairs
        ([5.0], False),
        ([0.0, 0.0, 0.0], False),
        ([2.0, 2.0, 2.0], True),
        ([1e-15, 1e-15, 1e-15], False),  # rounding
        ([5.0, 5.1, 4.9, None], True),  # a pair without a value does not count
    ],
)
def test_what_counts_as_shown(differences, shown):
    cell = numbers.paired(differences, [0.0] * len(differences))
    assert cell.shown is shown
    assert cell.n == sum(value is not None for value in differences)


def test_the_error_of_an_accuracy_is_binomial():
    """Against the deviation of all outcomes of 12 images, each right with probability 0.7."""
    p, n = 0.7, 12
    outcomes = [(math.comb(n, k) * p**k * (1 - p) ** (n - k), k / n) for k in range(n + 1)]
    variance = sum(weight * (share - p) ** 2 for weight, share in outcomes)
    assert numbers.error_of_share(p, n) == pytest.approx(math.sqrt(variance))
    assert numbers.error_of_share(1.0, n) == 0.0
