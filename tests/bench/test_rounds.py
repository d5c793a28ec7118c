"""Calls in turn, on clocks made by hand."""

import itertools

import numpy as np
import pytest

from flcl.bench import figures
from flcl.bench.rounds import interleave


class Work:
    """Calls that take the seconds they are told, on a clock of their own."""

    def __init__(self, **seconds):
        self.now, self.order = 0.0, []
        self.calls = {
            name: self._call(name, itertools.cycle(each)) for name, each in seconds.items()
        }

    def _call(self, name, seconds):
        def call():
            self.order.append(name)
            self.now += next(seconds)

        return call


def test_calls_alternate_and_every_other_round_turns_round():
    work = Work(a=[1.0], b=[2.0], c=[4.0])
    seconds = interleave(work.calls, 3, warm=2, clock=lambda: work.now)
    assert "".join(work.order) == "aabbcc" + "abc" + "cba" + "abc"
    assert seconds == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [4.0] * 3}


def test_warm_calls_are_not_timed():
    work = Work(a=[100.0, 1.0, 3.0], b=[50.0, 2.0, 2.0])
    seconds = interleave(work.calls, 2, clock=lambda: work.now)
    assert seconds == {"a": [1.0, 3.0], "b": [2.0, 2.0]}


def test_a_call_lasts_until_its_arrays_are_ready():
    class Slow:
        """An array that is ready five seconds after it was asked for."""

        def block_until_ready(self):
            work.now += 5.0
            return self

    work = Work()
    seconds = interleave({"slow": lambda: {"x": Slow()}}, 1, clock=lambda: work.now)
    assert seconds == {"slow": [5.0]}


def test_no_round_is_refused():
    with pytest.raises(ValueError, match="rounds=0: at least 1"):
        interleave({}, 0)


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    # A busy machine slows both in the third round: medians of the two alone would not see it.
    own, reference = [2.0, 3.0, 80.0, 4.0, 5.0], [1.0, 1.0, 40.0, 1.0, 1.0]
    figure = figures.timed("sampler", own, reference, note="why")
    assert (figure.ratio, figure.ratio_low, figure.ratio_high) == (3.0, 2.0, 4.0)
    assert (figure.median_seconds, figure.reference_seconds) == (4.0, 1.0)
    assert figure.spread == pytest.approx(2.0 / 3.0) and figure.rounds == 5
    assert figure.backend == "cpu" and figure.missed


def test_bars_are_found_by_name_then_by_item():
    def figure(name, backend="cpu", ratio=1.0):
        same = {"ratio_low": 1.0, "ratio_high": 1.0, "rounds": 1}
        return figures.Figure(name=name, backend=backend, ratio=ratio, **same)

    assert figure("phase1_step/G=2").bar == figures.BARS["phase1_step"] == 1.10
    assert figure("vit_step").bar == 0.70 and figure("vit_step/bytes").bar == 0.5
    assert figure("torchcfm_step").bar == 1.0 and figure("torchcfm_step", "gpu").bar == 0.9
    assert figure("phase2_step_unmodulated").bar is None
    assert not figure("phase2_step_unmodulated", ratio=9.0).missed
    assert not figure("sampler", ratio=1.02).missed and figure("sampler", ratio=1.03).missed


def test_counted_figures_have_no_seconds():
    figure = figures.counted("bytes_per_class", 30, 40)
    assert (figure.ratio, figure.median_seconds, figure.reference_seconds) == (0.75, None, None)
    values = figure.as_dict()
    assert (
        values["median_seconds"] is None and "mfu" not in values and np.isclose(values["bar"], 1.1)
    )


def test_more_numbers_of_a_figure_are_shown_where_there_are_any():
    figure = figures.counted("peak_memory/phase1", 30, 40, peak_bytes=30)
    assert figure.as_dict()["peak_bytes"] == 30
    assert "steps_per_second" not in figure.as_dict()
