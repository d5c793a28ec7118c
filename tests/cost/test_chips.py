"""The table of accelerators."""

import subprocess
import sys

import pytest

from flcl.cost.chips import CHIPS, chip_of


def test_a_chip_is_found_by_what_jax_calls_it():
    assert chip_of("TPU v5 lite") is CHIPS["v5e"]
    assert chip_of("NVIDIA H200") is CHIPS["h200"]
    assert chip_of("cpu") is None
    kinds = [kind for chip in CHIPS.values() for kind in chip.kinds]
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("name", CHIPS)
def test_figures_have_their_units(name):
    chip = CHIPS[name]
    assert 0.7 < chip.usable * chip.devices / chip.hbm < 1
    assert 1e14 < chip.flops < 1e16 and chip.peak == chip.flops / chip.devices
    assert 5e11 < chip.hbm_bandwidth < 1e13
    # Each network is slower than the one inside it.
    assert 1e9 < chip.network < chip.link < chip.hbm_bandwidth


def test_the_table_needs_no_jax():
    code = "import sys, flcl.cost.chips; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
