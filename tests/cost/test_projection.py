"""Weak scaling on paper."""

import pytest

from flcl.cost import projection
from flcl.cost.chips import CHIPS
from flcl.cost.hlo import Collective

CHIP = CHIPS["v5e"]


def project(found, fsdp=1, devices=4, chip=CHIP):
    flops = chip.peak * 0.5 * 0.010  # ten milliseconds at half of the peak
    return projection.project(flops, found, fsdp, devices, chip, 0.5)


def test_a_ring_all_reduce_inside_a_slice():
    rows = project([Collective("all-reduce", 10**8, 4)])
    assert [row["chips"] for row in rows] == [1, 4, 16, 64, 256, 1024, 4096]
    assert rows[0]["exchange_seconds"] == 0 and rows[0]["exposed"] == 1
    four = rows[1]
    assert four["work_seconds"] == pytest.approx(0.010)
    assert four["exchange_seconds"] == pytest.approx(2 * 3 / 4 * 1e8 / 50e9)
    assert four["hidden"] == 1 and four["exposed"] == pytest.approx(0.010 / 0.013)


def test_between_slices_each_chip_sends_its_part_over_the_network():
    rows = project([Collective("all-reduce", 10**8, 4)])
    inside, four_slices = rows[4], rows[5]
    assert (inside["slices"], four_slices["slices"]) == (1, 4)
    extra = four_slices["exchange_seconds"] - inside["exchange_seconds"]
    assert extra == pytest.approx(2 * 3 / 4 * 1e8 / 256 / 3.125e9)


def test_groups_that_share_parameters_keep_their_size():
    rows = project([Collective("all-gather", 10**8, 2)], fsdp=2)
    assert [row["exchange_seconds"] for row in rows] == pytest.approx([1 / 2 * 1e8 / 50e9] * 7)


def test_gradients_are_summed_over_the_whole_machine():
    """Also where as many devices share parameters as there are."""
    alone = project([Collective("all-reduce", 10**8, 4)], fsdp=1)
    shared = project([Collective("all-reduce", 10**8, 4)], fsdp=4)
    assert shared == alone


def test_devices_of_one_chip_share_its_links():
    single = project([Collective("all-reduce", 10**8, 8)], devices=8, chip=CHIPS["v5p"])
    double = project([Collective("all-reduce", 10**8, 8)], devices=8, chip=CHIPS["tpu7x"])
    assert double[2]["exchange_seconds"] > 1.9 * single[2]["exchange_seconds"]


def test_the_assumptions_name_their_numbers():
    text = " ".join(projection.assumptions(CHIP, 0.4))
    for part in ("40%", "197 TFLOP/s", "50 GB/s", "3.125 GB/s", "2(n-1)/n"):
        assert part in text
