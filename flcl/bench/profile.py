"""Where the time of a train step goes: JAX's own profile of it, as a table.

The profiler names the instruction of the compiled program that ran. The text of the program says
from which operation and module each instruction came, and so to which group it belongs.
"""

import dataclasses
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax

from flcl.bench.programs import Training, dtype_of
from flcl.bench.sizes import Size
from flcl.cost.hlo import KINDS
from flcl.devices import mesh as meshes

STEPS = 3
"""Steps that are profiled; the figures are those of one step."""

GROUPS = (
    "convolutions",
    "norms",
    "modulation",
    "matrix products",
    "optimiser",
    "exchange",
    "other",
)
"""`optimiser` has clipping and the average of the weights, too; `matrix products` are those of
attention and dense layers, `exchange` collectives, `other` activations, random numbers, copies."""

# By the operation and the modules of an instruction, the first that fits.
_MODULATION = re.compile(r"\bmodulation\b")
_NORM = re.compile(r"GroupNorm|LayerNorm|\bnorm\d*\b|_norm\b", re.IGNORECASE)
_CONVOLUTION = re.compile(r"conv_general_dilated|/conv\w*/|/patch_embed")
_PRODUCT = re.compile(r"dot_general|/(dense|attention|mlp|qkv|proj)\w*/", re.IGNORECASE)
_INSIDE_LOSS = re.compile(r"jvp\(|random|threefry|uniform|normal|bernoulli")

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = .*?[\]})] ([\w-]+)\(")
_NAME, _CALLS = re.compile(r'op_name="([^"]*)"'), re.compile(r"calls=%?([\w.-]+)")
# They last as long as the instructions inside them, which have events of their own.
_CONTAINERS = ("while", "call", "conditional")


class Instruction(NamedTuple):
    """An instruction of a compiled program: its operation code and where it comes from."""

    opcode: str
    name: str
    calls: str | None = None


@dataclasses.dataclass(frozen=True)
class Profile:
    """The time of one train step by group.

    Attributes:
      program: `phase1` or `phase2` of FunLoRA, or `fmlora`, a later task.
      devices: their number; seconds are summed over devices and threads.
      wall: seconds of a step on the clock, while the profiler was on.
      seconds: by group, in the order of `GROUPS`.
    """

    program: str
    devices: int
    wall: float
    seconds: Mapping[str, float]

    @property
    def shares(self) -> dict[str, float]:
        """The share of each group; they add up to 1."""
        total = sum(self.seconds.values()) or 1.0
        return {name: value / total for name, value in self.seconds.items()}


def profile(program: str, size: Size) -> Profile:
    """Profiles a train step on all devices of this process; program: see `Profile`."""
    training = _training(program, size)
    instructions = parsed(training.text)
    jax.block_until_ready(training())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            started = time.perf_counter()
            for _ in range(STEPS):
                jax.block_until_ready(training())
            wall = (time.perf_counter() - started) / STEPS
        seconds: Counter[str] = Counter()
        for name, length in _events(Path(folder)):
            seconds[group_of(name, instructions) or ""] += length / STEPS
    del seconds[""]
    by_group = {name: seconds[name] for name in GROUPS}
    if not sum(by_group.values()):
        raise ValueError(
            f"--profile={program}: JAX's profile names no instruction on this "
            f"{jax.default_backend()}; another version of JAX may"
        )
    return Profile(program, training.mesh.size, wall, by_group)


def _training(program: str, size: Size) -> Training:
    mesh, dtype = meshes.make_mesh(), dtype_of(size)
    if program == "fmlora":
        run = size.classifier_run("fmlora", model__dtype=dtype, model__trunk_dtype=dtype)
        return Training(run, 2, mesh=mesh)
    groups = size.step_groups[0]
    keys = {"model__dtype": dtype, "phase1__groups": groups, "phase2__groups": groups}
    return Training(size.generator_run(**keys), int(program[-1]), mesh=mesh)


def _events(folder: Path) -> Iterator[tuple[str, float]]:
    """Instruction and seconds of each event of a trace."""
    (file,) = folder.rglob("*.xplane.pb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a class inside JAX's reader
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    name = next((str(v) for key, v in event.stats if key == "hlo_op"), None)
                    # A second event marks the end of an instruction on a CPU.
                    if name is not None and not event.name.startswith("end: "):
                        yield name, event.duration_ns * 1e-9


def parsed(text: str) -> dict[str, list[Instruction]]:
    """The instructions of a compiled program by their name; those of a computation by its name."""
    instructions: dict[str, list[Instruction]] = {}
    inside: list[Instruction] = []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            inside = instructions.setdefault(f"%{match[1]}", [])
        elif match := _INSTRUCTION.match(line):
            name, calls = _NAME.search(line), _CALLS.search(line)
            entry = Instruction(match[2], name[1] if name else "", calls and calls[1])
            instructions[match[1]] = [entry]
            inside.append(entry)
    return instructions


def group_of(name: str, instructions: Mapping[str, list[Instruction]]) -> str | None:
    """The group of an instruction; None for one that only contains others."""
    known = instructions.get(name.lstrip("%"))
    if not known:
        return "other"
    (instruction,) = known
    if instruction.opcode in _CONTAINERS:
        return None
    fused = instructions.get(f"%{instruction.calls}", [])
    # What is fused with a convolution or a product takes hardly any time beside it.
    for each in fused:
        if each.opcode in ("convolution", "dot"):
            return _group(each)
    if (group := _group(instruction)) != "other":
        return group
    named = Counter(_group(each) for each in fused)
    del named["other"]
    return named.most_common(1)[0][0] if named else "other"


def _exchanges(instruction: Instruction) -> bool:
    return instruction.opcode.removesuffix("-start").removesuffix("-done") in KINDS


def _group(instruction: Instruction) -> str:
    name = instruction.name
    if _exchanges(instruction):
        return "exchange"
    for group, pattern in (
        ("modulation", _MODULATION),
        ("norms", _NORM),
        ("convolutions", _CONVOLUTION),
        ("matrix products", _PRODUCT),
    ):
        if pattern.search(name):
            return group
    # Gradients are taken of the loss alone, and what is outside them is the optimiser's.
    return "optimiser" if name and not _INSIDE_LOSS.search(name) else "other"
