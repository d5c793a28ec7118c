"""A number is an id and a name is a name; what could be both is refused."""

import numpy as np
import pytest

from flcl.data.sequence import orders
from flcl.settings import ids

NAMES = ("cat", "dog", "0", "2", "id:1", "²", "40")


@pytest.mark.parametrize(
    ("entry", "class_id"),
    [
        (0, 0),
        (np.int64(2), 2),
        ("1", 1),
        ("id:2", 2),
        ("name:2", 3),
        ("name:0", 2),
        ("cat", 0),
        ("name:cat", 0),
        ("name:id:1", 4),
        ("²", 5),
        ("40", 6),
    ],
)
def test_ids_and_names(entry, class_id):
    assert ids.resolve(entry, NAMES, "class") == class_id


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (
            "2",
            "class '2': is the id of '0' and the name of the class with id 3; write id:2 or name:2",
        ),
        (
            "id:1",
            "class 'id:1': is the id of 'dog' and the name of the class with id 4; write id:1 or",
        ),
        (7, "class 7 is not in this run: accepted are 0-6 or a name"),
        (-1, "class -1 is not in this run"),
        (True, "class True is not in this run"),
        (None, "class None is not in this run"),
        ("dogg", "Did you mean 'dog'"),
        ("9" * 5000, "is not in this run"),
    ],
)
def test_what_is_refused(entry, why):
    with pytest.raises(ValueError) as caught:
        ids.resolve(entry, NAMES, "class")
    assert why in str(caught.value) and len(str(caught.value)) < 300


def test_a_class_with_its_own_id_as_name_needs_no_mark():
    assert ids.resolve("1", ("0", "1"), "class") == 1


def test_an_order_of_domains_that_could_mean_two_orders():
    names = ("1", "0")
    with pytest.raises(ValueError, match="domain '0': is the id of '1' and the name"):
        orders.domain_order("0,1", names)
    assert orders.domain_order("name:0,name:1", names) == (1, 0)
    assert orders.domain_order("id:0,id:1", names) == (0, 1)
    assert orders.domain_order("2019,2018", ("2018", "2019")) == (1, 0)


@pytest.mark.parametrize("text", ["seed:" + "9" * 5000, "9" * 5000, "per:" + "9" * 5000])
def test_numbers_of_any_length_are_one_line(text):
    for read in (orders.class_order, orders.sizes):
        with pytest.raises(ValueError, match=r"^stream\.(class_order|tasks)="):
            read(text, 10)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3,5", ["3", "5"]),
        (" cat , dog", ["cat", "dog"]),
        ('"a,b",c', ["a,b", "c"]),
        ("3,,5", ["3", "", "5"]),
        ("", []),
        ("a\r\nb,c", ["a b", "c"]),
        ('"a', ["a"]),
    ],
)
def test_a_text_that_names_several(text, words):
    assert ids.separated(text) == words
