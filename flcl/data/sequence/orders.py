"""Reads the order of classes and domains and the sizes of tasks from a config."""

import collections
import re
from collections.abc import Sequence

import numpy as np

from flcl import hints
from flcl.settings import ids


def class_order(text: str, count: int) -> tuple[int, ...]:
    """Source class ids in their order of arrival; `ValueError` unless each id comes once."""
    if (order := _drawn("stream.class_order", text, count)) is not None:
        return order
    order = _integers(text)
    if order is None:
        raise ValueError(
            f"stream.class_order={text!r}: accepted are natural, seed:N, or all class ids such "
            "as 3,1,0,2"
        )
    _check_permutation("stream.class_order", text, "class", order, tuple(map(str, range(count))))
    return tuple(order)


def domain_order(text: str, names: Sequence[str]) -> tuple[int, ...]:
    """Source domain ids in their order of arrival, from names or ids; each must come once.

    `id:0` and `name:0` are accepted too; they are needed where domains are called like other ids.
    """
    if (order := _drawn("stream.domain_order", text, len(names))) is not None:
        return order
    words = [word.strip() for word in text.split(",")]
    if any(word.startswith(("id:", "name:")) and word not in names for word in words):
        words = [names[ids.resolve(word, names, "domain")] for word in words]
        text = ",".join(words)
    else:
        _check_no_conflict(words, names)
    numbers = _integers(text)
    unknown = [word for word in words if word not in names]
    if unknown and numbers is None:
        raise ValueError(
            f"stream.domain_order={short(text)!r}: domain {unknown[0]!r} unknown; accepted are "
            f"natural, seed:N, or all of {', '.join(names)} in any order."
            f"{hints.did_you_mean(unknown[0], list(names))}"
        )
    order = numbers if unknown else [names.index(word) for word in words]
    _check_permutation("stream.domain_order", text, "domain", order, tuple(names))
    return tuple(order)


def _check_no_conflict(words: list[str], names: Sequence[str]) -> None:
    """Raises `ValueError` for words that are an order of the names and another order of the ids."""
    if set(words) == set(names) == {*map(str, range(len(names)))}:
        for word in words:
            ids.resolve(word, names, "domain")


def sizes(text: str, count: int) -> tuple[int, ...]:
    """Number of classes of each task; `ValueError` unless they add up to `count`."""
    if each := re.fullmatch(r"per:([1-9]\d{0,17})", text.strip(), re.ASCII):
        size = min(int(each[1]), count)
        return (size,) * (count // size - 1) + (size + count % size,)
    numbers = _integers(text)
    if numbers is None or 0 in numbers:
        raise ValueError(
            f"stream.tasks={text!r}: accepted are a number of equal tasks such as 5, the classes "
            "of each task such as 4,2,2,2, or per:2 for two classes in every task"
        )
    if len(numbers) > 1:
        if sum(numbers) != count:
            raise ValueError(
                f"stream.tasks={short(text)!r}: adds up to {sum(numbers)} classes, but the data "
                f"has {count}"
            )
        return tuple(numbers)
    tasks = numbers[0]
    if tasks > count:
        raise ValueError(f"stream.tasks={text!r}: more tasks than classes ({count})")
    if count % tasks:
        uneven = ",".join(str(len(part)) for part in np.array_split(range(count), tasks))
        raise ValueError(
            f"stream.tasks={text!r}: {count} classes do not divide into {tasks} equal tasks; "
            f"name the classes of each task, such as {short(uneven)}"
        )
    return (count // tasks,) * tasks


def short(text: str, most: int = 60) -> str:
    """`text`, shortened to `most` characters."""
    return text if len(text) <= most else text[: most - 3] + "..."


def _drawn(key: str, text: str, count: int) -> tuple[int, ...] | None:
    """The natural order or a seeded order of `count` items; None for any other `text`."""
    if text == "natural":
        return tuple(range(count))
    seeded = re.fullmatch(r"seed:(\d{1,18})", text, re.ASCII)
    if not seeded:
        return None
    seed = int(seeded[1])
    if seed >= 2**32:
        raise ValueError(f"{key}={text!r}: seeds go up to {2**32 - 1}")
    # The same as `np.random.seed(N)` in published code, where `seed:1993` is the usual order.
    # NumPy never changes this generator, so an order is the same in every version.
    return tuple(np.random.RandomState(seed).permutation(count).tolist())


def _check_permutation(key: str, text: str, what: str, order: list[int], names: tuple) -> None:
    count = len(names)
    times = collections.Counter(order)
    for wrong, how in (
        (sorted(n for n in times if times[n] > 1), "named twice"),
        (sorted({n for n in order if n >= count}), "unknown"),
        (sorted(set(range(count)) - set(order)), "missing"),
    ):
        if wrong:
            listed = short(", ".join(names[n] if n < count else str(n) for n in wrong))
            needed = f"0 to {count - 1}"
            if what == "domain":
                needed += f" ({', '.join(names)})"
            raise ValueError(
                f"{key}={short(text)!r}: {what} {listed} {how}; each of {needed} is needed once"
            )


def _integers(text: str) -> list[int] | None:
    """The numbers of a list such as `3,1,0`; None if `text` is not such a list."""
    # Eighteen digits are more than any data has, and never too many for `int`.
    if not re.fullmatch(r"\s*\d{1,18}\s*(,\s*\d{1,18}\s*)*", text, re.ASCII):
        return None
    return [int(number) for number in text.split(",")]
