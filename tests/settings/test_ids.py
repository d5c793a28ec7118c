"""Lists of classes as users give them."""

import numpy as np
import pytest

from flcl.settings.ids import listed

NAMES = ("ant", "bee", "salt, pepper", "7")


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        (1, [1]),
        ("bee", [1]),
        ("3,ant", [3, 0]),
        (["bee", 0, "bee"], [1, 0, 1]),
        (["1,ant", 3], [1, 0, 3]),
        ("salt, pepper", [2]),
        (["name:salt, pepper", "1"], [2, 1]),
        ('ant,"salt, pepper"', [0, 2]),
        (np.array([3, 1]), [3, 1]),
        (np.int64(2), [2]),
        ((each for each in ("id:0", "name:7")), [0, 3]),
    ],
)
def test_ids_names_and_texts(given, ids):
    assert listed("classes", given, NAMES) == ids


@pytest.mark.parametrize(
    ("given", "default", "why"),
    [
        ([], "all", r"^classes=\[\]: at least one is needed; None = all$"),
        ("", "", "^classes='': at least one is needed$"),
        (np.zeros(0, int), "", "at least one is needed"),
        (2.5, "", r"^classes=2.5: a list of ids or names is needed, such as \[3, 5\]$"),
        (None, "", "classes=None: a list of ids or names is needed"),
        (["0,cow"], "", "class 'cow' is not in this run: accepted are 0-3 or a name"),
        ([True], "", "class True is not in this run"),
    ],
)
def test_what_is_no_list_of_classes(given, default, why):
    with pytest.raises(ValueError, match=why):
        listed("classes", given, NAMES, default=default)
