"""Distances and neighbours of features against closed forms and naive loops."""

import numpy as np
import pytest

from flcl.metrics import frechet, kernel, neighbours
from flcl.metrics.frechet import Gaussian, frechet_distance, together
from flcl.metrics.kernel import kernel_distance
from flcl.metrics.neighbours import copied, manifolds

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(23, 4))
GENERATED = RNG.normal(0.4, 0.8, size=(17, 4))


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Several blocks, and a last one that is not full."""
    # Not the fixture of this name: with it, programs that others compiled would be dropped.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "_BLOCK", 5)
        patch.setattr(neighbours, "_BLOCK", 5)
        yield


def distances(first, second):
    return np.array([[np.linalg.norm(x - y) for y in second] for x in first])


def test_frechet_distance_of_gaussians_that_share_their_axes():
    """There the distance is |m1 - m2|^2 + sum (s1 - s2)^2 over the axes (Dowson & Landau 1982)."""
    turn, _ = np.linalg.qr(RNG.normal(size=(3, 3)))
    first, second = np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.5, 0.0])

    def of(mean, spreads):
        return Gaussian(10, np.array(mean), 9 * turn @ np.diag(spreads**2) @ turn.T)

    distance = frechet_distance(of([0.0, 1.0, 0.0], first), of([2.0, 1.0, 1.0], second))
    assert distance == pytest.approx(5 + ((first - second) ** 2).sum())


def test_statistics_in_batches_and_in_any_order_are_those_of_all_at_once():
    batches = [REAL[:1], REAL[1:9], REAL[9:]]
    for parts in (batches, batches[::-1]):
        merged = together(map(Gaussian.of, parts))
        assert merged.count == 23
        np.testing.assert_allclose(merged.mean, REAL.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(merged.scatter / 22, np.cov(REAL.T), rtol=1e-12)


def test_frechet_distance_of_identical_sets_is_0_also_with_fewer_samples_than_features():
    few = RNG.normal(5, 3, size=(4, 10))
    for features in (REAL, few, np.ones((3, 2))):
        there = frechet_distance(Gaussian.of(features), Gaussian.of(features[::-1]))
        assert there == pytest.approx(0, abs=1e-10)
    # Of two sets in different planes nothing is shared.
    first, second = np.diag([3.0, 0.0]), np.diag([0.0, 4.0])
    apart = frechet_distance(Gaussian(2, np.zeros(2), first), Gaussian(2, np.zeros(2), second))
    assert apart == pytest.approx(7)
    with pytest.raises(ValueError, match="1 and 23 features"):
        frechet_distance(Gaussian.of(REAL[:1]), Gaussian.of(REAL))


def mean_kernel(one, other, same: bool) -> float:
    pairs = [
        (x @ y / 4 + 1) ** 3
        for i, x in enumerate(one)
        for j, y in enumerate(other)
        if not same or i != j
    ]
    return sum(pairs) / len(pairs)


def naive_kernel_distance(first, second):
    inside = mean_kernel(first, first, True) + mean_kernel(second, second, True)
    return inside - 2 * mean_kernel(first, second, False)


def test_kernel_distance_is_the_double_sum_and_its_error_leaves_one_sample_out():
    value, error = kernel_distance(REAL, GENERATED)
    assert value == pytest.approx(naive_kernel_distance(REAL, GENERATED))
    variance = 0
    for chosen in (0, 1):
        sets = [REAL, GENERATED]
        count, without = len(sets[chosen]), []
        for row in range(count):
            pair = list(sets)
            pair[chosen] = np.delete(sets[chosen], row, axis=0)
            without.append(naive_kernel_distance(*pair))
        variance += (count - 1) / count * ((without - np.mean(without)) ** 2).sum()
    assert error == pytest.approx(np.sqrt(variance))
    again = kernel_distance(REAL[::-1], RNG.permutation(GENERATED))
    np.testing.assert_allclose(again, (value, error), rtol=1e-10)


def naive_stratified_distance(first, second):
    """With the classes of a set in a list: all pairs of classes by their shares."""
    shares = [len(each) / sum(map(len, first)) for each in first]

    def expected(one, other, same):
        return sum(
            a * b * mean_kernel(x, y, same and i == j)
            for i, (a, x) in enumerate(zip(shares, one, strict=True))
            for j, (b, y) in enumerate(zip(shares, other, strict=True))
        )

    return sum(expected(each, each, True) for each in (first, second)) - 2 * expected(
        first, second, False
    )


def test_sets_with_fixed_numbers_of_each_class_are_estimated_class_by_class():
    cuts = ([7, 12], [7, 12])
    sets = [np.split(each[:17], cut) for each, cut in zip((REAL, GENERATED), cuts, strict=True)]
    value, error = kernel_distance(REAL[:17], GENERATED, [7, 5, 5])
    assert value == pytest.approx(naive_stratified_distance(*sets))
    # The jackknife with the shares as they are: a class without a sample keeps its own.
    shares, variance = [7 / 17, 5 / 17, 5 / 17], 0
    for chosen in (0, 1):
        for number in range(3):
            without = []
            for row in range(len(sets[chosen][number])):
                pair = [list(each) for each in sets]
                pair[chosen][number] = np.delete(pair[chosen][number], row, axis=0)
                without.append(
                    sum(
                        a * b * mean_kernel(x, y, side == other and i == j) * sign
                        for side, other, sign in ((0, 0, 1), (1, 1, 1), (0, 1, -2))
                        for i, (a, x) in enumerate(zip(shares, pair[side], strict=True))
                        for j, (b, y) in enumerate(zip(shares, pair[other], strict=True))
                    )
                )
            count = len(without)
            variance += (count - 1) / count * ((without - np.mean(without)) ** 2).sum()
    assert error == pytest.approx(np.sqrt(variance))
    with pytest.raises(ValueError, match="do not add up to 23 and 17"):
        kernel_distance(REAL, GENERATED, [7, 5, 5])
    with pytest.raises(ValueError, match="at least 2 in each class"):
        kernel_distance(REAL[:17], GENERATED, [16, 1])


def test_two_classes_far_apart_have_no_bias_class_by_class():
    """Without strata, equal numbers of both classes give a distance far below 0."""

    def draw():
        return np.concatenate([RNG.normal(size=(6, 2)), RNG.normal(9, size=(6, 2))])

    pairs = [(draw(), draw()) for _ in range(200)]
    known = np.array([kernel_distance(*pair, [6, 6]).value for pair in pairs])
    mixed = np.array([kernel_distance(*pair).value for pair in pairs])
    noise = known.std() / np.sqrt(len(pairs))
    assert abs(known.mean()) < 4 * noise < -mixed.mean()


def test_kernel_distance_of_sets_of_one_kind_is_0_within_its_error():
    draws = [kernel_distance(*RNG.normal(size=(2, 40, 3))) for _ in range(40)]
    scores = [value / error for value, error in draws]
    assert abs(np.mean(scores)) < 0.5 and np.quantile(np.abs(scores), 0.9) < 3
    far = kernel_distance(RNG.normal(size=(40, 3)), RNG.normal(1.0, size=(40, 3)))
    assert far.value > 3 * far.error
    assert kernel_distance(REAL[:2], GENERATED).error is None
    with pytest.raises(ValueError, match="at least 2"):
        kernel_distance(REAL[:1], GENERATED)


@pytest.mark.parametrize("k", [1, 3])
def test_manifolds_are_those_of_a_double_loop(k):
    around_real, around_generated = (
        np.array([np.sort(row)[k] for row in distances(each, each)]) for each in (REAL, GENERATED)
    )
    apart = distances(REAL, GENERATED)
    inside = [
        sum(apart[i, j] <= around_real[i] for i in range(len(REAL))) for j in range(len(GENERATED))
    ]
    recalled = [any(apart[i] <= around_generated) for i in range(len(REAL))]
    covered = [any(apart[i] <= around_real[i]) for i in range(len(REAL))]
    expected = (np.mean([n > 0 for n in inside]), np.mean(recalled), np.mean(inside) / k)
    found = manifolds(REAL, GENERATED, k)
    np.testing.assert_allclose(found, (*expected, np.mean(covered)))
    np.testing.assert_allclose(manifolds(REAL[::-1], GENERATED[::-1], k), found)
    # A generator that repeats one real image is precise and covers next to nothing.
    one = manifolds(REAL, np.repeat(REAL[:1], 23, axis=0), k)
    assert one.precision == 1 and one.recall == pytest.approx(1 / 23)
    assert manifolds(REAL, REAL, k) == (1, 1, pytest.approx((k + 1) / k), 1)
    with pytest.raises(ValueError, match="k=17: accepted"):
        manifolds(REAL, GENERATED, 17)


def test_copies_are_those_of_a_loop_and_planted_ones_are_found():
    def naive(train, samples):
        apart, count = distances(train, train), 0
        for sample in samples:
            to_train = [np.linalg.norm(sample - image) for image in train]
            nearest = int(np.argmin(to_train))
            count += to_train[nearest] < min(np.delete(apart[nearest], nearest))
        return count / len(samples)

    assert 0 < copied(REAL, GENERATED) == naive(REAL, GENERATED) < 1
    planted = np.concatenate([REAL[:4] + 1e-3, 100 + np.eye(4)])
    assert copied(REAL, planted) == naive(REAL, planted) == 0.5
    # New points on a line are the nearest neighbour of theirs in two cases of three.
    assert copied(RNG.random((1_500, 1)), RNG.random((1_500, 1))) == pytest.approx(2 / 3, abs=0.05)
    # A training image that is there twice has no ball that a sample could be in.
    assert copied(np.concatenate([REAL, REAL]), REAL) == 0
    with pytest.raises(ValueError, match="1 training images"):
        copied(REAL[:1], GENERATED)


def test_the_bias_of_the_frechet_distance_is_that_of_few_samples():
    def distance(count):
        first, second = RNG.normal(size=(2, count, 16))
        return frechet_distance(Gaussian.of(first), Gaussian.of(second))

    assert distance(40) > 10 * distance(1_000)
    assert frechet.BIASED_BELOW == 5_000
