"""InfLoRA: adaptation without interference (Liang and Li, CVPR 2024).

dW = sum_k A_k B_k' in the layout of a kernel [in, out]. Before task t the columns of A_t are fixed:
they span the directions of the task's inputs that are orthogonal to those of old tasks, so the
update leaves old inputs as they are. Only B_t trains, and the head. (The paper names them B_t and
A_t.) Afterwards the input directions of the task join the old ones (DualGPM).
"""

import jax
import jax.numpy as jnp
import numpy as np

from flcl import settings
from flcl.adapters import factorized
from flcl.data.sequence.stream import Task, TaskStream
from flcl.methods.peers.lora_baselines import LoRAClassifier, beside

SOURCES = {"q": "q", "k": "q", "v": "q"}
"""Maps that read the same input; every other map has its own."""


class InfLoRA(LoRAClassifier):
    """Memory, in addition to that of every classifier:

    `lora`: A and B of all tasks, [T, in, r] and [T, out, r] per map, zeros for later tasks;
    `design` [in, r] per map: A of the newest task; `occupied` [in, in] per input: the projection on
    the directions of old tasks; `finished`: the number of tasks. The memory grows with the tasks.
    """

    name = "inflora"
    surveys_twice = True
    run: settings.InfLoRARun

    def __init__(self, run: settings.InfLoRARun, stream: TaskStream):
        super().__init__(run, stream)
        # The first map of those with one input stands for it.
        self._inputs = {
            block: {SOURCES.get(site, site): site for site in reversed(sites)}
            for block, sites in self.shapes.items()
        }

    def init(self, key):
        tasks, fresh = self.stream.task_slots, jax.eval_shape(self.fresh, key)
        return super().init(key) | {
            "lora": jax.tree.map(lambda v: jnp.zeros((tasks, *v.shape)), fresh),
            "design": factorized.map_sites(lambda f: jnp.zeros(f["a"].shape), fresh),
            "occupied": {
                block: {
                    name: jnp.zeros(2 * self.shapes[block][site][:1])
                    for name, site in names.items()
                }
                for block, names in self._inputs.items()
            },
            "finished": jnp.zeros((), jnp.int32),
        }

    def surveys(self, task):
        del task
        return True

    def survey(self, memory, compared, batch):
        """Sums over images of the mean x x' of the tokens that a map reads, [in, in] per input."""
        del compared
        model, weights = self.inference(memory), batch["weights"]
        adapters = {block: dict(sites) for block, sites in model["adapters"].items()}
        for block, names in self._inputs.items():
            for site in names.values():
                # The identity beside A, with a core of zero, shows the input and adds nothing.
                width, outputs = self.shapes[block][site]
                show = {"a": jnp.eye(width), "core": jnp.zeros((width, width))}
                show["b"] = jnp.zeros((outputs, width))
                adapters[block][site] = beside(adapters[block][site], show)
        images = self._normalised(batch["images"])
        variables = {"params": model["trunk"], "adapter": adapters}
        _, state = self.network.apply(variables, images, mutable="seen")

        def moment(block, site):
            (projected,) = state["seen"][block][site]["projected"]
            x = projected[..., -self.shapes[block][site][0] :].astype(jnp.float32)
            # The mean over the tokens of an image; all images have equally many.
            x = x / x.shape[1] ** 0.5
            return jnp.einsum("b,bti,btj->ij", weights, x, x, precision="highest")

        moments = {
            block: {name: moment(block, site) for name, site in names.items()}
            for block, names in self._inputs.items()
        }
        return {"moments": moments, "images": weights.sum()}

    def with_survey(self, memory, task, sums):
        second = jax.tree.map(
            lambda m: np.asarray(m, np.float64) / float(sums["images"]), sums["moments"]
        )
        occupied = memory["occupied"]
        if int(memory["finished"]) < task.index:
            columns = factorized.map_sites(
                lambda m, p: design(m, np.asarray(p, np.float64), self.run.lora.rank),
                second,
                occupied,
            )
            chosen = {
                block: {s: jnp.float32(columns[block][SOURCES.get(s, s)]) for s in sites}
                for block, sites in self.shapes.items()
            }
            return {**memory, "design": chosen}
        lora, tasks = self.run.lora, len(self.stream.tasks)
        share = lora.energy + (lora.final_energy - lora.energy) * (task.index - 1) / tasks
        larger = factorized.map_sites(
            lambda m, p: jnp.float32(enlarged(m, np.asarray(p, np.float64), share)),
            second,
            occupied,
        )
        return {**memory, "occupied": larger}

    def begin(self, memory, task: Task, key):
        trainable, frozen = super().begin(memory, task, key)
        trainable["lora"] = factorized.map_sites(
            lambda v: {"b": jnp.zeros_like(v["b"][0])}, memory["lora"]
        )
        frozen["design"] = memory["design"]
        return trainable, frozen | ({"past": memory["lora"]} if task.index > 1 else {})

    def model(self, phase, trainable, frozen, key, progress):
        lora = factorized.map_sites(
            lambda a, new: {"a": a, "b": new["b"]}, frozen["design"], trainable["lora"]
        )
        model, extra = super().model(phase, {"lora": lora}, frozen, key, progress)
        if phase == 2:
            past = self._side_by_side(frozen["past"])
            model["adapters"] = factorized.map_sites(beside, past, model["adapters"])
        return model, extra

    def end(self, memory, task: Task, trainable):
        slot = task.index - 1
        lora = factorized.map_sites(
            lambda old, a, new: {
                "a": old["a"].at[slot].set(a),
                "b": old["b"].at[slot].set(new["b"]),
            },
            memory["lora"],
            memory["design"],
            trainable["lora"],
        )
        finished = jnp.asarray(task.index, jnp.int32)
        return super().end(memory, task, trainable) | {"lora": lora, "finished": finished}

    def inference(self, memory):
        return {"trunk": memory["trunk"], "adapters": self._side_by_side(memory["lora"])}

    def added(self, memory, task: Task):
        newest = jax.tree.map(lambda v: v[task.index - 1], memory["lora"])
        written = {"lora": newest, "occupied": memory["occupied"]}
        return super().added(memory, task) | written

    def restore(self, memory, task: Task, added):
        slot = task.index - 1
        lora = jax.tree.map(lambda v, new: v.at[slot].set(new), memory["lora"], added["lora"])
        return super().restore(memory, task, added) | {
            "lora": lora,
            "design": factorized.map_sites(lambda f: f["a"], added["lora"]),
            "occupied": added["occupied"],
            "finished": jnp.asarray(task.index, jnp.int32),
        }

    def parameters_per_task(self):
        return self.factor_parameters()

    def _side_by_side(self, lora) -> dict:
        """One adapter of rank T r; tasks that have not come have a B of zero and add nothing."""

        def joined(f):
            a, b = (jnp.concatenate(list(f[name]), axis=1) for name in ("a", "b"))
            return {"a": a, "core": self.run.lora.scale * jnp.eye(a.shape[1]), "b": b}

        return factorized.map_sites(joined, lora)


def design(second: np.ndarray, occupied: np.ndarray, rank: int) -> np.ndarray:
    """A_t [in, rank]: the first left singular vectors of (I - P) E[x x'], each of length 1/sqrt(3).

    second: E[x x'] [in, in] of the task's inputs. occupied: P, the projection on the directions of
    old tasks, [in, in].
    """
    left, _, _ = np.linalg.svd(second - occupied @ second)
    return left[:, :rank] / np.sqrt(3)


def enlarged(second: np.ndarray, occupied: np.ndarray, share: float) -> np.ndarray:
    """P with as few more directions as hold `share` of the squared singular values of E[x x'].

    They are the first left singular vectors of (I - P) E[x x']. DualGPM stores the smaller one of
    this space and its complement; the rule is the same. Public code keeps one direction less after
    the first task.
    """
    total = np.sum(np.linalg.svd(second, compute_uv=False) ** 2)
    left, values, _ = np.linalg.svd(second - occupied @ second)
    held = np.cumsum(np.concatenate([[total - np.sum(values**2)], values**2]))
    # held[r] is what r more directions hold; the last one holds everything, up to rounding.
    more = min(int(np.sum(held < share * total * (1 - 1e-12))), len(values))
    # No more directions than the space has: the others are rounding.
    free = len(second) - round(float(np.trace(occupied)))
    new = left[:, : min(more, free)]
    return occupied + new @ new.T
