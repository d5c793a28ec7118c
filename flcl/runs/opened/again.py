"""The newest task of a generator on disk, evaluated again and again with other settings."""

import dataclasses

import jax

from flcl import methods
from flcl.evaluate.features import silent
from flcl.evaluate.generators import GeneratorEvaluation
from flcl.runs.opened import run as opened
from flcl.runs.opened.generator import GeneratorOnDisk

METRICS = ("fd", "kd", "prdc")
"""What is measured of samples beside real images; copies would take longer than all others."""


class NewestAgain:
    """Evaluates the newest task of a run; the images and the judge of real images are made once.

    It needs the data of the run. Raises the errors of `GeneratorOnDisk.evaluate`.
    """

    def __init__(self, run: GeneratorOnDisk):
        self._run = run
        stored = opened.changed(run.settings, judge={"metrics": METRICS})
        self._setup = run.with_images(stored)
        self._newest = run.stream.tasks[run.learned[-1] - 1]
        self._first = self._evaluation(stored, None)
        with jax.set_mesh(self._setup.mesh):
            # Now, so that it has the seed of the run, whatever the first row asks for.
            self._first.real_judge.variables(self._instead_of_images())

    def row(
        self, sample: dict | None = None, judge: dict | None = None, seed: int | None = None
    ) -> dict:
        """The row of `results.json` after the newest task, see `GeneratorEvaluation.evaluate`.

        sample, judge: keys of these sections with other values. seed: of the noise and of the
        judges that samples train; None = that of the run. So the row with nothing changed has the
        accuracies of the run itself.
        """
        changes = {"sample": sample or {}, "judge": {"metrics": METRICS, **(judge or {})}}
        run = opened.changed(self._run.settings, **changes)
        run = run if seed is None else dataclasses.replace(run, seed=seed)
        memory = self._run._memory(self._newest.index)
        with jax.set_mesh(self._setup.mesh):
            return self._evaluation(run, self._first).evaluate(memory, self._newest)

    def _instead_of_images(self) -> dict:
        """Samples by label, if some images are not here; otherwise nothing has to be drawn."""
        if all(map(self._setup.data.here, self._run.stream.groups)):
            return {}
        return self._first.samples(self._run._memory(self._newest.index), self._newest)

    def _evaluation(self, run, beside: GeneratorEvaluation | None) -> GeneratorEvaluation:
        setup, newest = self._setup, self._newest
        method = methods.shared(run, setup.data.stream.sized(newest.index))
        # The sampler of the run: it is compiled once for all seeds.
        return GeneratorEvaluation(
            method,
            setup.data,
            lambda task: self._run._sampler(run.sample, task),
            setup.mesh,
            silent,
            beside=beside,
        )
