"""What an evaluation shows beside numbers."""

import numpy as np
import tiny

from flcl.data.selection import everything
from flcl.data.sequence.stream import make_stream
from flcl.data.sequence.tasks import TaskData
from flcl.data.sources import load_source
from flcl.evaluate import pictures


def shades(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 4, 4, 3), np.uint8)


def test_answers_are_counted_over_groups_and_the_most_frequent_mistakes_come_first():
    count = pictures.AnswerCount(4)
    first = everything(shades(1, 2, 3, 4), [0, 0, 1, 1])
    count.add(first, np.array([0, 1, 3, 3]))
    count.add(everything(shades(5, 6, 7), [2, 2, 0]), np.array([2, 0, 1]))
    found = count.answers()
    wanted = [[1, 2, 0, 0], [0, 0, 0, 2], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert found.confusion.tolist() == wanted
    assert list(zip(found.labels, found.answers, strict=True)) == [(0, 1), (1, 3), (2, 0)]
    # Of every mistake the first image.
    np.testing.assert_array_equal(found.images, shades(2, 3, 6))


def test_only_a_handful_of_mistakes_is_kept():
    count = pictures.AnswerCount(30)
    labels = np.arange(30)
    count.add(everything(shades(*range(30)), labels), (labels + 1) % 30)
    found = count.answers()
    assert len(found.images) == pictures.MISTAKES and found.confusion.sum() == 30
    assert found.labels.tolist() == list(range(pictures.MISTAKES))


def test_without_mistakes_there_are_no_images():
    count = pictures.AnswerCount(2)
    assert count.answers() is None
    count.add(everything(shades(1), [1]), np.array([1]))
    found = count.answers()
    assert len(found.images) == len(found.labels) == len(found.answers) == 0


def test_real_images_are_test_images_of_the_asked_labels(data):
    run = tiny.settings_of(data, stream__class_order="5,4,3,2,1,0")
    source = load_source(run.data)
    found = pictures.real_images(TaskData(source, make_stream(run.stream, source)), [0, 3], 2)
    with np.load(data) as arrays:
        images, labels = arrays["test_images"], arrays["test_labels"]
    assert list(found) == [0, 3]
    for label, class_id in ((0, 5), (3, 2)):
        np.testing.assert_array_equal(found[label], images[labels == class_id][:2])


def test_classes_of_several_domains_share_their_real_images(tmp_path):
    data = tiny.write_domains(tmp_path / "domains.npz")
    run = tiny.classifier_of(data, stream__scenario="dil", stream__tasks="2", data__channels=3)
    source = load_source(run.data)
    found = pictures.real_images(TaskData(source, make_stream(run.stream, source)), [1], 100)
    assert len(found[1]) == 8 + 4  # all test images of both domains
