"""The short form of the campaign of random faults: fixed trials of every kind."""

import sys

import jax
import pytest
from campaign import run
from campaign.driver import Driver

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="the campaign finds its moments by sys.monitoring"
)

# (kind, number of the trial with seed 0). All runs are of one method: making another takes longer.
TRIALS = (
    ("array", 0),
    ("value", 0),
    ("source", 0),
    ("folder", 0),
    ("weights", 0),
    ("archive", 0),
    ("config_file", 0),
    ("damage", 21),
    ("damage", 25),
    ("stranger", 0),
    ("kill", 0),
    ("stop", 0),
    ("disk", 3),
    ("process", 10),
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A worker process, and a folder for its runs; its programs are those of other tests."""
    with Driver(tmp_path_factory.mktemp("campaign"), jax.device_count()) as driver:
        yield driver


@pytest.mark.parametrize(("kind", "number"), TRIALS)
def test_a_trial_ends_well(driver, kind, number):
    result = run.trial(driver, 0, number, kind)
    assert not result.problem, f"{result.repro()} {result.notes}\n{result.problem}"
    assert result.ended


def test_every_kind_is_tried():
    assert {kind for kind, _ in TRIALS} == set(run.WEIGHTS)
    from campaign.kinds import KINDS

    assert set(KINDS) == set(run.WEIGHTS)
