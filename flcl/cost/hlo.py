"""Finds the exchanges between devices in the text of a compiled program."""

import math
import re
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
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = (.*)$", re.MULTILINE)
_COLLECTIVE = re.compile(rf"(?:ragged-)?({'|'.join(KINDS)})(-start)?")
_GROUPS_OF_LISTS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_GROUPS_OF_SHAPE = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_GROUPS_OF_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")


class Collective(NamedTuple):
    """One exchange between devices.

    Attributes:
      kind: one of `KINDS`.
      bytes: bytes that one device reduces, gathers or sends: the larger of input and output.
      group: number of devices that take part.
    """

    kind: str
    bytes: int
    group: int


def collectives(text: str, devices: int) -> list[Collective]:
    """The exchanges in a compiled program; an exchange inside a loop is listed once.

    devices: number of devices that take part if the text names no groups. A group of one device
    exchanges nothing and is left out.
    """
    exchanges = []
    for instruction in _INSTRUCTION.findall(text):
        shape, operation = _shape_and_operation(instruction)
        match = _COLLECTIVE.fullmatch(operation)
        if match is None:
            continue
        kind, starts = match[1], bool(match[2])
        group = _group_size(instruction, devices)
        if kind == "collective-permute" or group > 1:
            size = _payload(kind, shape, starts) * (group if kind == "reduce-scatter" else 1)
            exchanges.append(Collective(kind, size, group))
    return exchanges


def summary(exchanges: list[Collective]) -> list[dict]:
    """Count and bytes of each kind that occurs: `{"kind", "count", "bytes"}`."""
    lines = []
    for kind in KINDS:
        sizes = [exchange.bytes for exchange in exchanges if exchange.kind == kind]
        if sizes:
            lines.append({"kind": kind, "count": len(sizes), "bytes": sum(sizes)})
    return lines


def _shape_and_operation(instruction: str) -> tuple[str, str]:
    """`f32[2]{0:T(128)}` and `add` of `f32[2]{0:T(128)} add(%x, %y)`; a shape may be a tuple."""
    end = _closing(instruction) if instruction.startswith("(") else instruction.find(" ")
    operation = re.match(r"\s*([\w-]+)\(", instruction[end:])
    return instruction[:end], operation[1] if operation else ""


def _closing(text: str) -> int:
    """The position after the bracket that closes the first bracket of `text`."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place + 1
    return len(text)


def _bytes(text: str) -> int:
    """Bytes of all arrays in the text of a shape, such as `(f32[2,3]{1,0:T(8,128)}, u32[])`."""
    total = 0
    for kind, dims in _ARRAY.findall(text):
        bits = _BITS.get(kind) if kind in _BITS else int((re.findall(r"\d+", kind) or [0])[0])
        total += math.prod(map(int, filter(None, dims.split(",")))) * bits
    return total // 8


def _payload(kind: str, shape: str, starts: bool) -> int:
    """Bytes of a result; an asynchronous start also lists operands and semaphores."""
    if starts and kind in ("all-gather", "collective-permute") and shape.startswith("("):
        members = _members(shape[1 : _closing(shape) - 1])
        shape = members[1] if len(members) > 1 else shape
    return _bytes(shape)


def _members(text: str) -> list[str]:
    """The members of a tuple at its first level."""
    members, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            members.append(text[start:place])
            start = place + 1
    return [*members, text[start:]]


def _group_size(instruction: str, devices: int) -> int:
    if lists := _GROUPS_OF_LISTS.search(instruction):
        return len(lists[1].split(","))
    if shape := _GROUPS_OF_SHAPE.search(instruction):
        return int(shape[2])
    if axes := _GROUPS_OF_MESH.search(instruction):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", axes[1]))
        # An axis may be split: 'axis':(first)size names `size` of its devices.
        named = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes[2])
        return math.prod(int(size or sizes[name]) for name, _, size in named)
    return devices
