"""A source cut into tasks: which images each trains on, and the line that says what was found."""

import numpy as np
import pytest

from flcl import settings
from flcl.data import base
from flcl.data.stream import make_stream
from flcl.data.tasks import TaskData


@pytest.fixture
def source():
    """Three classes in two domains; four training images of each, two for the test."""

    def split(count):
        labels, domains = (np.repeat(v, count) for v in ([0, 1, 2] * 2, [0, 0, 0, 1, 1, 1]))
        return base.make_split(np.arange(len(labels), dtype=np.uint8)[:, None], labels, domains)

    return base.Source("pets", split(4), split(2), ("cat", "dog", "eel"), ("ink", "oil"))


def tasks_of(source, **stream):
    return TaskData(source, make_stream(settings.Stream(**stream), source))


def test_classes_come_in_their_order(source):
    data = tasks_of(source, tasks="1,2", class_order="2,0,1")
    first, second = data.stream.tasks
    assert list(data.train(first)) == [0] and list(data.train(second)) == [1, 2]
    chosen = data.train(first)[0]
    np.testing.assert_array_equal(source.train.labels[chosen.indices], 2)
    np.testing.assert_array_equal(chosen[np.array([0, 1])][:, 0], chosen.indices[:2])
    test = data.test(second)
    np.testing.assert_array_equal(test.labels, np.repeat([1, 2], 4))
    np.testing.assert_array_equal(source.test.labels[test.indices], np.repeat([0, 1], 4))
    assert data.test_counts() == [4, 8] and data.class_names() == ["eel", "cat", "dog"]


def test_domains_have_all_classes(source):
    data = tasks_of(source, scenario="dil", tasks="domains", domain_order="oil,ink")
    images = data.test(data.stream.groups[0])
    np.testing.assert_array_equal(source.test.domains[images.indices], 1)
    assert data.group_names() == ["oil", "ink"]


def test_what_was_found_is_one_line(source):
    found = "pets: 3 classes, 2 domains (ink, oil), 24 training and 12 test images, "
    assert tasks_of(source, tasks="3").summary() == found + "3 tasks"
    assert tasks_of(source, tasks="3", joint=True).summary() == found + "one joint task"
