"""The statistics of a task, which a classifier counts once, after its training."""

import numpy as np

from flcl.data.selection import Selection, joined
from flcl.data.sequence.stream import Task
from flcl.evaluate.features import Inference, Progress
from flcl.methods.base import Labelled, Memory, Moved
from flcl.runs.setup import Setup
from flcl.runs.statistics.substitutes import Substitutes


class Statistics:
    """Counts the training images of one task after the other.

    inference: the compiled programs of the method. substitutes: the images in the place of those of
    earlier tasks, which are never read again. progress: shows how many images are done.
    """

    def __init__(
        self, setup: Setup, inference: Inference, substitutes: Substitutes, progress: Progress
    ):
        self._method, self._data, self._inference = inference.method, setup.data, inference
        self._substitutes, self._progress = substitutes, progress

    def add(self, before: Memory, memory: Memory, task: Task) -> Memory:
        """The memory with the statistics of a task; before: the memory before its training."""
        method, images = self._method, joined(self._data.train(task))
        features = self._features(memory, images, f"statistics of task {task.index}")
        moved = old = None
        corrects, makes_anew = method.corrects(task), method.makes_anew(task)
        samples = self._substitutes.samples(task) if corrects or makes_anew else None
        if makes_anew:
            drawn = self._features(memory, samples, f"samples for task {task.index}")
            old = Labelled(drawn, samples.labels)
        if corrects:
            # The same images through the network before the task: how old statistics must follow.
            others = [each for each in (samples, self._substitutes.unlabelled) if each is not None]
            what = f"drift of task {task.index}"
            after = [self._features(memory, each, what) for each in others]
            earlier = [self._features(before, each, what) for each in (images, *others)]
            moved = Moved(np.concatenate(earlier), np.concatenate([features, *after]))
        scores = self._inference.scores
        return method.calibrate(memory, task, features, images.labels, moved, scores, old)

    def _features(self, memory: Memory, images: Selection, what: str) -> np.ndarray:
        return self._inference.features(memory, images, self._progress(what, len(images)))
