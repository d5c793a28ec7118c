"""Which convolutions are adapted."""

import json

import numpy as np
import pytest

from flcl.adapters.layers import select_layers

NAMES = [f"conv{i}" for i in range(8)]


def test_forms():
    assert select_layers("all", NAMES) == tuple(range(8))
    assert select_layers("2-4", NAMES) == (2, 3, 4)
    assert select_layers("7,0,3", NAMES) == (0, 3, 7)


def test_top_takes_the_highest_scores_of_a_finished_run(tmp_path):
    scores = [{"name": n, "score": s} for n, s in zip(NAMES, [1, 5, 3, 9, 2, 8, 0, 4], strict=True)]
    (tmp_path / "results.json").write_text(json.dumps({"importance": scores}))
    assert select_layers(f"top:3@{tmp_path}", NAMES) == (1, 3, 5)
    assert select_layers(f"bottom:3@{tmp_path}", NAMES) == (0, 4, 6)
    assert select_layers(f"bottom:8@{tmp_path}", NAMES) == tuple(range(8))


def test_layers_at_random_depend_on_their_number_alone():
    drawn = {n: select_layers(f"random:4@{n}", NAMES) for n in range(20)}
    assert len(set(drawn.values())) > 10
    for number, layers in drawn.items():
        assert len(set(layers)) == 4 and list(layers) == sorted(layers)
        assert set(select_layers(f"random:2@{number}", NAMES)) < set(layers)
    # Each of eight convolutions is drawn about as often as the others: 80 draws, 10 expected.
    counts = np.bincount(np.concatenate(list(drawn.values())), minlength=8)
    assert counts.min() >= 3 and counts.max() <= 18


REFUSED = ("some", "3-9", "4-2", "", "0,8", "top:3", "top:0@x", "top:9@x", "bottom:9@x")


@pytest.mark.parametrize("spec", [*REFUSED, "random:3", "random:9@0", "random:3@-1", "random:3@x"])
def test_other_forms_are_refused_by_name(spec):
    with pytest.raises(ValueError, match="adapter.layers"):
        select_layers(spec, NAMES)


def test_top_needs_scores(tmp_path):
    with pytest.raises(ValueError, match="holds no importance scores"):
        select_layers(f"top:3@{tmp_path}", NAMES)
