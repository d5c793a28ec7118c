"""Ridge regression where there are fewer images than features, and a weight of nearly zero."""

import numpy as np

from flcl.heads.base import Batch, in_memory, on_host
from flcl.heads.ridge import Ridge
from flcl.settings.classifier import heads as keys


class Run:
    """RanPAC's keys, with few random features."""

    seed = 0
    heads = keys.Heads()
    ridge = keys.Ridge(width=200, rule="split", centred=False, unit=False)


def test_the_rounding_of_stored_sums_makes_no_system_singular():
    head, generator = Ridge(Run, 8, 4, None), np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)
    features = generator.normal(size=(40, 8)).astype(np.float32) + 3 * np.eye(8)[labels, :]
    states = {s.key: on_host(in_memory(s.init(None))) for s in head.statistics}
    batch = Batch(features.astype(np.float32), labels)
    states = {s.key: on_host(in_memory(s.add(states[s.key], batch))) for s in head.statistics}
    states[head.chosen.key] = {"weight": np.asarray(1e-8)}
    scores = np.asarray(head.scores(head.solve(states, False), batch.features))
    assert np.isfinite(scores).all() and np.all(scores.argmax(axis=1) == labels)
