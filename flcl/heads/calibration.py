"""All heads of a run together: one pass over the training images of a task serves every head."""

from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from flcl import settings
from flcl.data.sequence.stream import Task
from flcl.heads import HEADS, held_out
from flcl.heads.base import Batch, Head, Move, Statistic, in_memory, joined, on_host
from flcl.heads.drawn import Drawn
from flcl.heads.linear import Trained
from flcl.rng import host_generator

STALE = "stale"
"""The entry of the memory with states that never follow the features, for `drift.diagnose`."""

Memory = dict
Scores = Callable[[dict, np.ndarray], Mapping[str, np.ndarray]]


class Calibration:
    """The heads that a run fits, and the statistics that they share.

    run: the settings. capacity: most classes. slots: number of domains that may have their own
    means; None = there are no domains. trained: the linear layer that the method trains; None = it
    trains none. draws: the covariance of features that the method draws, see `Drawn`; empty = none.

    Attributes:
      heads: the heads by name, `run.head` included.
      solved_heads: the names of those that are solved from counted images.
      keeps_stale: whether the memory also has states that never follow the features.
      drawn: draws features of learned classes; None without `draws`.
    """

    def __init__(
        self,
        run: settings.ClassifierRun,
        capacity: int,
        slots: int | None,
        trained: Trained | None,
        draws: str = "",
    ):
        self._run, self._capacity, width = run, capacity, run.model.feature_width
        names = [*run.heads.fit, *({run.head} - {*run.heads.fit})]
        # Gaussians keep the axes of each domain, so they also need its means.
        apart = run.heads.means != "class" or "gaussian" in names or draws == "class"
        self._slots = slots if apart else None
        self.heads: dict[str, Head] = {
            name: HEADS[name](run, width, capacity, self._slots) for name in names
        }
        self.drawn = Drawn(run, width, capacity, self._slots, draws) if draws else None
        readers = {**self.heads, **({"": self.drawn} if self.drawn else {})}
        self.statistics: dict[str, Statistic] = joined(readers)
        if trained is not None:
            # Also without a linear head among those that are shown: it gives the gradients.
            self.statistics["head"] = trained
        # Those that images change; gradients alone change the others.
        self._counted = {
            key: each for key, each in self.statistics.items() if not isinstance(each, Trained)
        }
        self.solved_heads = tuple(
            name
            for name, head in self.heads.items()
            if any(each.key in self._counted for each in head.statistics)
        )
        self._held_out = held_out.HeldOut(self.heads) if run.heads.holdout else None
        self.keeps_stale = isinstance(run, settings.MovingRun) and run.drift.diagnose

    def init(self, key: jax.Array) -> Memory:
        """The states before the first task by key."""
        states = {name: each.init(key) for name, each in self.statistics.items()}
        stale = {STALE: {name: states[name] for name in self._counted}} if self.keeps_stale else {}
        return states | stale | ({"held_out": self._held_out.init()} if self._held_out else {})

    def add(
        self,
        memory: Memory,
        task: Task,
        batch: Batch,
        move: Move | None,
        score: Scores,
        old: Batch | None = None,
    ) -> Memory:
        """The memory with the training images of a task.

        move: how features have moved since the old states were counted; None = not at all. score:
        (what `Classifier.solved` returns, features) -> scores [N, capacity] by name of the head.
        old: images that stand for all earlier tasks, from which the states of these tasks are made
        anew; None = the states stay, or follow `move`.
        """
        if old is not None:
            states = self._added(self._empty(), old)
        else:
            states = {key: on_host(memory[key]) for key in self._counted}
        if move is not None:
            states = {key: self._counted[key].moved(state, move) for key, state in states.items()}
        batch = batch._replace(slot=self._slot(task))

        def with_images(rows) -> dict:
            some = batch._replace(features=batch.features[rows], labels=batch.labels[rows])
            return self._added(states, some)

        updated = dict(memory)
        if self._held_out:
            updated |= self._measure(memory, task, batch, with_images, score)
        if self.keeps_stale:
            updated[STALE] = in_memory(self._added(on_host(memory[STALE]), batch))
        return updated | in_memory(with_images(slice(None)))

    def uncorrected(self, memory: Memory) -> Memory:
        """The memory with the states that never followed the features; needs `keeps_stale`."""
        return {**memory, **memory[STALE]}

    def recounted(self, memory: Memory, tasks: Iterable[tuple[Task, Batch]]) -> Memory:
        """The memory with states that are counted from the images of all `tasks` again."""
        states = self._empty()
        for task, batch in tasks:
            states = self._added(states, batch._replace(slot=self._slot(task)))
        return {**memory, **in_memory(states)}

    def _empty(self) -> dict:
        """The counted states before the first task, on the host."""
        key = jax.random.key(0)  # no count is random
        return {name: on_host(each.init(key)) for name, each in self._counted.items()}

    def _added(self, states: dict, batch: Batch) -> dict:
        return {key: self._counted[key].add(state, batch) for key, state in states.items()}

    def _measure(self, memory, task: Task, batch: Batch, with_images, score: Scores) -> Memory:
        """The entry `held_out`, from images that the heads have not seen yet."""
        generator = host_generator(self._run.seed, "held-out images", task.index)
        rows = held_out.split(batch.labels, self._run.heads.holdout, generator)
        if not rows.any() or rows.all():
            return {}
        states = self._trained(memory) | with_images(~rows)

        def scores_of(by_domain: bool):
            heads = {n: head.solve(states, by_domain) for n, head in self.heads.items()}
            return score({"heads": heads, "seen": memory["seen"]}, batch.features[rows])

        by_domain = scores_of(True) if self._slots and self._run.heads.means == "auto" else None
        plain = scores_of(self._run.heads.means == "domain")
        state = on_host(memory["held_out"])
        added = self._held_out.add(state, plain, by_domain, batch.labels[rows])
        return {"held_out": in_memory(added)}

    def solve(self, memory: Memory) -> dict:
        """The part of every head by name."""
        states = {key: on_host(memory[key]) for key in self.statistics}
        by_domain = dict.fromkeys(self.heads, self._run.heads.means == "domain")
        if self._run.heads.means == "auto" and self._held_out:
            by_domain = self._held_out.by_domain(on_host(memory["held_out"]))
        return {name: head.solve(states, by_domain[name]) for name, head in self.heads.items()}

    def temperatures(self, memory: Memory) -> dict[str, float]:
        """The temperature of each head by name; 1 if no images are held out."""
        if self._held_out is None:
            return dict.fromkeys(self.heads, 1.0)
        return self._held_out.temperature(on_host(memory["held_out"]))

    def take(self, memory: Memory, task: Task, everything: bool) -> Memory:
        """What a task stores; everything: because it moved the rows of all classes."""
        labels, slot = np.asarray(task.labels), self._slot(task)
        taken = {
            key: each.take(memory[key], labels, slot, everything)
            for key, each in self.statistics.items()
        }
        if self.keeps_stale:
            taken[STALE] = {
                key: each.take(memory[STALE][key], labels, slot, False)
                for key, each in self._counted.items()
            }
        return taken | ({"held_out": memory["held_out"]} if self._held_out else {})

    def put(self, memory: Memory, task: Task, added: Memory) -> Memory:
        """Inverse of `take`: the changed entries of the memory."""
        labels, slot = np.asarray(task.labels), self._slot(task)
        changed = {
            key: each.put(memory[key], labels, slot, added[key])
            for key, each in self.statistics.items()
        }
        if self.keeps_stale:
            changed[STALE] = {
                key: each.put(memory[STALE][key], labels, slot, added[STALE][key])
                for key, each in self._counted.items()
            }
        return changed | ({"held_out": added["held_out"]} if self._held_out else {})

    def forget(self, memory: Memory, label: int) -> Memory:
        """The changed entries of the memory when a class is removed: see `Statistic.forget`."""
        changed = {key: each.forget(memory[key], label) for key, each in self.statistics.items()}
        if self.keeps_stale:
            stale = memory[STALE].items()
            changed[STALE] = {key: self._counted[key].forget(state, label) for key, state in stale}
        return changed

    def bytes(self) -> dict[str, int]:
        """Bytes of all statistics: for each class, and once; without those of the diagnosis."""
        states = jax.eval_shape(self.init, jax.random.key(0))
        states.pop(STALE, None)
        total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states))
        capacity = self._capacity
        per_class = sum(each.bytes_per_class() for each in self.statistics.values())
        return {"per_class": per_class, "once": total - capacity * per_class}

    def _slot(self, task: Task) -> int:
        return task.index - 1 if self._slots else 0

    def _trained(self, memory: Memory) -> dict:
        return {"head": on_host(memory["head"])} if "head" in self.statistics else {}
