"""A source cut into tasks: which images each trains on, and the line that says what was found."""

import dataclasses

import numpy as np
import pytest

from flcl import settings
from flcl.data import base
from flcl.data.sequence.stream import make_stream
from flcl.data.sequence.tasks import Counts, TaskData


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


def test_the_digests_of_the_tasks_add_up_in_every_order(source):
    totals = set()
    for order in ("natural", "seed:1"):
        data = tasks_of(source, tasks="3", class_order=order)
        each = [int(data.digest(task), 16) for task in data.stream.tasks]
        assert len(set(each)) == len(each) > 1
        totals.add(sum(each) % 2**256)
    assert len(totals) == 1
    away = dataclasses.replace(data, counts={1: data.images(data.stream.tasks[0])})
    assert away.digest(away.stream.tasks[0]) is None


def test_groups_with_a_removed_class_are_not_tested(source):
    data = tasks_of(source, tasks="1,2")
    less = dataclasses.replace(data, stream=data.stream.without([2, 9]))
    assert less.stream.removed == (2,)
    assert [less.tested(group) for group in less.stream.groups] == [True, False]
    assert less.to_dict() == data.to_dict()
    assert (
        dataclasses.replace(less, counts={1: Counts((8,), (4,))}).tested(less.stream.groups[0])
        is False
    )


def test_a_domain_without_images_of_a_removed_class_is_tested(source):
    kept = np.flatnonzero((source.test.labels != 2) | (source.test.domains == 0))
    test = base.make_split(
        source.test.images[kept], source.test.labels[kept], source.test.domains[kept]
    )
    data = tasks_of(dataclasses.replace(source, test=test), scenario="dil", tasks="domains")
    less = dataclasses.replace(data, stream=data.stream.without([2]))
    assert [less.tested(group) for group in less.stream.groups] == [False, True]
