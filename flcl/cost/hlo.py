"""Reading the text of a compiled program: which collectives it has, and the work of a GPU's."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*)$", re.MULTILINE)
_COLLECTIVE = re.compile(rf"(?:ragged-)?({'|'.join(KINDS)})(-start)?")
_GROUPS_OF_LISTS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_GROUPS_OF_SHAPE = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_GROUPS_OF_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")


class Collective(NamedTuple):
    """One exchange between devices.

    Attributes:
      kind: one of `KINDS`.
      bytes: what is reduced, gathered or sent, on one device, whole: the larger of its two sides.
      group: devices that take part.
    """

    kind: str
    bytes: int
    group: int


def collectives(text: str, devices: int) -> list[Collective]:
    """The exchanges in a compiled program; those inside a loop are listed once.

    devices: how many take part where the text names no groups. An exchange among one device is
    none and is left out.
    """
    found = []
    for _, rest in _instructions(text):
        shape, operation = _shape_and_operation(rest)
        match = _COLLECTIVE.fullmatch(operation)
        if match is None:
            continue
        kind, starts = match[1], bool(match[2])
        group = _group_size(rest, devices)
        if kind == "collective-permute" or group > 1:
            size = _payload(kind, shape, starts)
            found.append(Collective(kind, size * (group if kind == "reduce-scatter" else 1), group))
    return found


def summary(found: list[Collective]) -> list[dict]:
    """Count and bytes of each kind that occurs: `{"kind", "count", "bytes"}`."""
    return [
        {"kind": kind, "count": len(own), "bytes": sum(each.bytes for each in own)}
        for kind in KINDS
        for own in [[each for each in found if each.kind == kind]]
        if own
    ]


def matrix_flops(text: str) -> float:
    """FLOPs of the matrix products and convolutions of a program that is compiled for a GPU.

    XLA does not count the work of what it leaves to cuDNN and cuBLAS; loops are counted once.
    """
    rests = dict(_instructions(text))
    # Of a tuple the first array is the result, the next are scratch.
    shapes = {name: _shapes(_shape_and_operation(rest)[0]) for name, rest in rests.items()}
    return sum(_work(name, rest, shapes) for name, rest in rests.items())


def _work(name: str, rest: str, shapes: dict) -> float:
    target = re.search(r'custom_call_target="__(\w+)\$([\w$]+)"', rest)
    if target is None and _shape_and_operation(rest)[1] not in ("dot", "convolution"):
        return 0.0
    operands = re.search(r"(?:custom-call|dot|convolution)\(([^)]*)\)", rest)
    names = re.findall(r"%([\w.-]+)", operands[1]) if operands else []
    if len(names) < 2 or not shapes[name]:
        return 0.0
    result, left, right = shapes[name][0], shapes[names[0]][0], shapes[names[1]][0]
    labels = re.search(r"dim_labels=\w+_(\w+)->\w+", rest)
    if labels:
        # Of the three arrays of a convolution only the kernel and the output decide its work.
        kind = target[2] if target else ""
        if kind == "convBackwardInput":
            kernel, output = right, left
        elif kind == "convBackwardFilter":
            kernel, output = result, right
        else:
            kernel, output = right, result
        taps = [n for n, label in zip(kernel, labels[1], strict=False) if label != "o"]
        return 2.0 * math.prod(output) * math.prod(taps)
    contracting = re.search(r'lhs_contracting_dim\w*"?[=:][\[{]([^\]}]*)', rest)
    if contracting is None:
        return 0.0
    inner = math.prod(left[int(axis)] for axis in re.findall(r"\d+", contracting[1]))
    return 2.0 * math.prod(result) * inner


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    for match in _INSTRUCTION.finditer(text):
        yield match[1], match[2]


def _shape_and_operation(rest: str) -> tuple[str, str]:
    """`f32[2]{0:T(128)}` and `add` of `f32[2]{0:T(128)} add(%x, %y)`; a shape may be a tuple."""
    end = _closing(rest) if rest.startswith("(") else rest.find(" ")
    operation = re.match(r"\s*([\w-]+)\(", rest[end:])
    return rest[:end], operation[1] if operation else ""


def _closing(text: str) -> int:
    """Where the bracket that `text` begins with is closed."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place + 1
    return len(text)


def _shapes(text: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, filter(None, dims.split(",")))) for _, dims in _ARRAY.findall(text)]


def _bytes(text: str) -> int:
    """Bytes of all arrays in the text of a shape, such as `(f32[2,3]{1,0:T(8,128)}, u32[])`."""
    total = 0
    for kind, dims in _ARRAY.findall(text):
        bits = _BITS.get(kind) if kind in _BITS else int((re.findall(r"\d+", kind) or [0])[0])
        total += math.prod(map(int, filter(None, dims.split(",")))) * bits
    return total // 8


def _payload(kind: str, shape: str, starts: bool) -> int:
    """Bytes of a result; the start of an asynchronous one also lists operands and semaphores."""
    if starts and kind in ("all-gather", "collective-permute") and shape.startswith("("):
        parts = _parts(shape[1 : _closing(shape) - 1])
        shape = parts[1] if len(parts) > 1 else shape
    return _bytes(shape)


def _parts(text: str) -> list[str]:
    """The members of a tuple, at its first level."""
    parts, depth, last = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append(text[last:place])
            last = place + 1
    return [*parts, text[last:]]


def _group_size(rest: str, devices: int) -> int:
    if lists := _GROUPS_OF_LISTS.search(rest):
        return len(lists[1].split(","))
    if shape := _GROUPS_OF_SHAPE.search(rest):
        return int(shape[2])
    if axes := _GROUPS_OF_MESH.search(rest):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", axes[1]))
        named = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes[2])
        return math.prod(int(part or sizes[name]) for name, _, part in named)
    return devices
