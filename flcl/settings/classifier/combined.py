"""A generator and a classifier that one command trains, on the same classes and tasks."""

import dataclasses

from flcl.settings.classification import MovingRun
from flcl.settings.generation import FunLoRARun
from flcl.settings.shared import Run

PARTS = ("generator", "classifier")
"""The two runs; the keys of each come after its name, such as `generator.model.width`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combined:
    """Two runs: the samples of the first are the memory of the second."""

    generator: Run
    classifier: Run

    def check(self) -> None:
        """Raises `ValueError`, with the dotted key, for runs that do not fit each other."""
        for name, run, accepted, words in (
            ("generator", self.generator, FunLoRARun, "funlora, whose classes never change"),
            ("classifier", self.classifier, MovingRun, "a classifier that changes its features"),
        ):
            if not isinstance(run, accepted):
                raise ValueError(f"{name}.method={run.method!r}: needed is {words}")
        if self.classifier.memory.generator:
            raise ValueError(
                f"classifier.memory.generator={self.classifier.memory.generator!r}: the generator "
                "is trained by the same command; leave it empty"
            )
        for name, run in (
            ("generator", self.generator),
            ("classifier", self.with_generator("generator")),
        ):
            try:
                run.check()
            except ValueError as error:
                raise ValueError(f"{name}.{error}") from None

    def with_generator(self, workdir: str) -> MovingRun:
        """The classifier, with the generator in `workdir` as its memory."""
        memory = dataclasses.replace(self.classifier.memory, generator=workdir)
        return dataclasses.replace(self.classifier, memory=memory)
