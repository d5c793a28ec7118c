"""The judge that was trained on real images: it gives the ceiling and the fidelity of samples."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from flcl.data.selection import Selection, everything, joined
from flcl.data.sequence.stream import Task
from flcl.devices import sharding
from flcl.evaluate.judge import fidelity
from flcl.evaluate.judging import Judging, marked


class JudgeStore(Protocol):
    """Stores the judge that was trained on real images."""

    def save_judge(self, variables, made_of: dict) -> None:
        """Stores the variables of the judge. made_of: the labels of its classes by origin."""

    def restore_judge(self, target, made_of: dict, unknown: bool):
        """The variables of the judge, shaped and placed as `target`.

        None if no judge of these classes is stored; unknown: whether one counts of which an older
        version did not store the classes.
        """


class RealJudge:
    """It knows all classes of the run that were not removed, and is trained once for them.

    Classes whose images are not here are the newest samples. store: None = every process trains
    this judge again.

    Attributes:
      judge: its programs, with room for all classes of the run.
      ceiling: its accuracy on each group, or None before the first evaluation.
    """

    def __init__(self, judging: Judging, store: JudgeStore | None):
        self.judge = judging.judge(len(judging.data.stream.tasks))
        self.ceiling: list[float | None] | None = None
        self._judging, self._data, self._store = judging, judging.data, store
        self._variables: dict | None = None
        self._made_of: dict[str, list[int]] = {}

    def variables(self, drawn: Mapping[int, np.ndarray]) -> dict:
        """The trained judge. drawn: the newest samples by label."""
        known, groups = self._judging.known, self._groups_here()
        here = {label for group in groups for label in group.labels} & set(known)
        # Of a class that is not learned yet and whose images are gone, there is nothing.
        gone = [label for label in known if label not in here and label in drawn]
        # By label: as many other classes would make another judge.
        made_of = {"real": sorted(here), "generated": gone}
        if self._variables is None or self._made_of != made_of:
            self._made_of = made_of
            self._variables = self._stored_or_trained(drawn, made_of)
            groups = list(self._data.stream.groups)
            self.ceiling = self._judging.accuracies(self.judge, self._variables, groups)
        return self._variables

    def _stored_or_trained(self, drawn: Mapping[int, np.ndarray], made_of: dict) -> dict:
        """The judge of the labels `made_of`: from the store, or trained and stored."""
        target = sharding.replicated_like(self.judge.abstract_variables(), self._judging.mesh)
        # This judge does not depend on the generator, so a continued run does not train it again.
        stored = None
        if self._store:
            stored = self._store.restore_judge(target, made_of, not self._data.learned)
        if stored is None:
            here, gone = set(made_of["real"]), set(made_of["generated"])
            groups = self._groups_here()
            real = {k: v for group in groups for k, v in self._data.train(group).items()}
            images = {
                k: real[k] if k in here else everything(drawn[k])
                for k in self._judging.known
                if k in here or k in gone
            }
            stored = self._judging.train(self.judge, joined(images), list(images), "real")
            if self._store:
                self._store.save_judge(stored, made_of)
        return stored

    def fidelity(
        self, drawn: Mapping[int, np.ndarray], samples: Selection, groups: Sequence[Task]
    ) -> dict:
        """The entries of a row that tell which `samples` this judge recognises.

        Numbers of a group whose images are not here, or with a class that was removed, are None.
        """
        # All classes of the run, also those not learned yet: so the fidelity of a class can be
        # compared between rows.
        variables, known = self.variables(drawn), self._judging.known
        seen = marked(self.judge, known)
        labels = [group.labels for group in groups]
        recognised = fidelity(self.judge, variables, samples, labels, seen)
        tested = [self._data.tested(group) for group in groups]
        real = {label for group in self._groups_here() for label in group.labels}
        return {
            "fidelity_per_task": [
                value if kept else None
                for value, kept in zip(recognised["per_task"], tested, strict=True)
            ],
            "fidelity_per_class": {
                str(k): v if k in real else None for k, v in recognised["per_class"].items()
            },
            **({"fidelity_classes": len(known)} if not self._data.stream.joint else {}),
        }

    def _groups_here(self) -> list[Task]:
        return [group for group in self._data.stream.groups if self._data.here(group)]
