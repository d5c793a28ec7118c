"""What fits into some minutes, against sums made by hand."""

import pytest

from flcl.runs.planned.fitting import RESERVE, Least, Needs, Shares, fit

LEAST = Least(steps=0.01, epochs=0.1, images=0.1)


def used(needs: Needs, shares: Shares) -> float:
    evaluation = shares.images * (needs.drawing + shares.epochs * needs.judging)
    return needs.fixed + evaluation + shares.steps * needs.steps


def test_what_fits_keeps_its_lengths():
    assert fit(10, Needs(steps=300, judging=100, drawing=50, fixed=60), LEAST) == (1.0, 1.0, 1.0)


def test_steps_fill_what_a_short_evaluation_leaves():
    # 540 seconds without the reserve: 60 fixed, 100 for samples and judges, 380 of 1000 for steps.
    shares = fit(10, Needs(steps=1000, judging=60, drawing=40, fixed=60), LEAST)
    assert shares.epochs == shares.images == 1.0 and shares.steps == pytest.approx(0.38)


def test_epochs_of_the_judges_become_fewer_before_images_do():
    # 500 seconds beside the fixed ones: 150 for the evaluation, 50 for samples, 100 of 400 judging.
    shares = fit(10, Needs(steps=10_000, judging=400, drawing=50, fixed=40), LEAST)
    assert shares.epochs == pytest.approx(0.25) and shares.images == 1.0
    assert shares.steps == pytest.approx(0.035)


def test_then_images_become_fewer():
    # Of 150 seconds, 1000 / 10 for judges and 400 for samples of all images are too many.
    shares = fit(10, Needs(steps=10_000, judging=1000, drawing=400, fixed=40), LEAST)
    assert shares.epochs == 0.1 and shares.images == pytest.approx(0.3)


def test_a_short_training_leaves_its_time_to_the_judges():
    shares = fit(10, Needs(steps=100, judging=600, drawing=0, fixed=40), LEAST)
    assert shares.steps == 1.0 and shares.epochs == pytest.approx(400 / 600)


@pytest.mark.parametrize("steps", [10.0, 1e3, 1e5])
@pytest.mark.parametrize("judging", [0.0, 30.0, 900.0])
@pytest.mark.parametrize("drawing", [0.0, 100.0])
def test_the_reserve_is_never_planned(steps, judging, drawing):
    needs = Needs(steps=steps, judging=judging, drawing=drawing, fixed=100)
    shares = fit(20, needs, Least())
    assert all(0 < share <= 1 for share in shares)
    assert used(needs, shares) <= 1200 * (1 - RESERVE) + 1e-6


def test_too_few_minutes_are_refused_with_the_number_that_is_needed():
    needs = Needs(steps=6000, judging=100, drawing=0, fixed=170)
    with pytest.raises(ValueError) as caught:
        fit(3, needs, LEAST)
    # 170 + 1 + 60 seconds, and the reserve.
    assert str(caught.value).startswith(
        "runtime.minutes=3: on this machine 4.3 minutes are needed for the fewest steps (2.8 of"
    )
