"""Reads a pickled image batch without unpickling it.

A pickle is a program. `pickle.Unpickler` can be kept from calling foreign functions, but NumPy's
own constructors trust the state that a pickle gives them, and a forged one crashes the process. So
`pickletools` splits the file into operations here, and only those that a batch of CIFAR needs are
carried out. They make dictionaries, lists, texts, whole numbers and arrays of numbers.
"""

import io
import math
import pickletools
import re
from typing import BinaryIO

import numpy as np

# Operations that put their argument on the stack: whole numbers, texts and bytes.
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
    "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()  # on the stack, before the items of a list, tuple or dictionary
# The official files have at most 400,000 operations. A small archive can hold billions.
_MOST_OPERATIONS = 4_000_000
_NAMES = {
    "numpy.ndarray",
    "numpy.dtype",
    # NumPy has moved this function.
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
}


def read_batch(content: bytes) -> dict:
    """The dictionary of a pickled batch; arrays are NumPy arrays of numbers.

    Raises `ValueError` for anything else than dictionaries, lists, tuples, texts, bytes, whole
    numbers and arrays of numbers, and for a file that ends early. If the operations do not fit
    together, the error may also be an `IndexError`, a `KeyError` or a `TypeError`.
    """
    batch = carried_out(Machine(len(content)), io.BytesIO(content))
    if not isinstance(batch, dict):
        raise ValueError(f"a pickled {type(batch).__name__} where a dictionary is needed")
    return {k: v.values if isinstance(v, _Array) else v for k, v in batch.items()}


def carried_out(machine: "Machine", file: BinaryIO):
    """The value of the pickle that begins at the place of `file`, which is then behind it."""
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count == _MOST_OPERATIONS:
            raise ValueError(f"a pickle of more than {_MOST_OPERATIONS} operations")
        machine.step(operation.name, argument)
    return machine.pop()


class _Name:
    """One of `_NAMES`. It stands for itself and is never called."""

    def __init__(self, module: str, name: str):
        if f"{module}.{name}" not in _NAMES:
            raise _refused(f"{module}.{name}")
        self.name = name


class _Type:
    """A type of plain numbers, such as u1; no objects, texts, records or dates."""

    def __init__(self, arguments):
        code = arguments[0]
        if not isinstance(code, str) or not re.fullmatch(r"[biuf][1248]", code):
            raise _refused(f"an array of type {code if isinstance(code, str) else 'unknown'}")
        self.dtype = np.dtype(code)

    def build(self, state) -> None:
        """Takes the byte order; the rest of the state must be that of a plain number."""
        _, order, *rest = state
        # What follows are the parts, names and fields of a record, which a number does not have.
        if not isinstance(order, str) or order not in "<>|=" or rest[:3] != [None] * 3:
            raise _refused(f"a changed type {self.dtype}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array; `values` is None until its content is known."""

    def __init__(self):
        self.values: np.ndarray | None = None

    def build(self, state) -> None:
        """Makes `values` from (version, shape, type, whether columns come first, content)."""
        _, shape, kind, columns, content = state
        if not isinstance(kind, _Type) or not all(type(size) is int for size in shape):
            raise _refused("an array without shape or type")
        # Python 2 pickled these archives; there, text and bytes had the same type.
        content = content.encode("latin-1") if isinstance(content, str) else content
        if min(shape, default=0) < 0 or math.prod(shape) * kind.dtype.itemsize != len(content):
            raise ValueError(f"{len(content)} bytes for an array of another size")
        values = np.frombuffer(content, kind.dtype)
        self.values = values.reshape(shape, order="F" if columns else "C")


class Machine:
    """The stack and the memory that the operations of a pickle use.

    size: the length of the pickle in bytes. Its arrays together cannot be larger. A kind of file
    that needs other operations has a class of its own, with another `step`.
    """

    def __init__(self, size: int):
        self.stack: list = []
        self._memory: dict[int, object] = {}
        self._left = size

    def step(self, name: str, argument) -> None:
        """Carries out one operation; `ValueError` for one that no image batch needs."""
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.stack.append(_MARK)
            case "EMPTY_DICT" | "DICT" | "SETITEM" | "SETITEMS":
                self._change_dict(name)
            case "EMPTY_LIST" | "LIST" | "APPEND" | "APPENDS":
                self._change_list(name)
            case "TUPLE":
                self.stack.append(tuple(self._pop_marked()))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memory[argument] = self.stack[-1]
            case "MEMOIZE":
                self._memory[len(self._memory)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self._memory[argument])
            case "GLOBAL" | "STACK_GLOBAL":
                words = argument.split(" ", 1) if argument else self.pop_last(2)
                self.stack.append(_Name(*words))
            case "REDUCE":
                self._make(*self.pop_last(2))
            case "BUILD":
                self._build(self.pop())
            case _ if name in _VALUES:
                self.stack.append(argument)
            case _ if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            case _ if name in _TUPLES:
                self.stack.append(tuple(self.pop_last(_TUPLES[name])))
            case _:
                raise _refused(f"the operation {name}")

    def pop(self):
        """Takes the last value from the stack; `IndexError` if there is none."""
        return self.stack.pop()

    def pop_last(self, count: int) -> list:
        """Takes the last `count` values from the stack, in the order in which they came."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def _pop_marked(self) -> list:
        """Takes all values after the last mark, and the mark."""
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _change_dict(self, name: str) -> None:
        items = []
        if name != "EMPTY_DICT":
            items = self.pop_last(2) if name == "SETITEM" else self._pop_marked()
        if "EMPTY" in name or name == "DICT":
            self.stack.append({})
        keys, target = items[::2], self.stack[-1]
        # Other keys are not needed. To compare nested tuples, Python may need its whole stack.
        if not isinstance(target, dict) or not all(isinstance(key, str) for key in keys):
            raise _refused("a dictionary without text keys")
        target.update(zip(keys, items[1::2], strict=True))

    def _change_list(self, name: str) -> None:
        items = []
        if name != "EMPTY_LIST":
            items = self.pop_last(1) if name == "APPEND" else self._pop_marked()
        if "EMPTY" in name or name == "LIST":
            self.stack.append([])
        target = self.stack[-1]
        if not isinstance(target, list):
            raise _refused(f"a {type(target).__name__} as a list")
        target.extend(items)

    def _make(self, function, arguments) -> None:
        name = function.name if isinstance(function, _Name) else type(function).__name__
        if name == "dtype":
            self.stack.append(_Type(arguments))
        elif name == "_reconstruct":
            self.stack.append(_Array())
        else:
            raise _refused(f"a call of {name}")

    def _build(self, state) -> None:
        target = self.stack[-1]
        if not isinstance(target, _Type | _Array):
            raise _refused(f"the state of a {type(target).__name__}")
        target.build(state)
        if isinstance(target, _Array):
            # One text can be the content of many arrays.
            self._left -= target.values.nbytes
            if self._left < 0:
                raise _refused("arrays that are larger than the file")


def _refused(what: str) -> ValueError:
    return ValueError(f"{what} is not allowed in a pickled image batch")
