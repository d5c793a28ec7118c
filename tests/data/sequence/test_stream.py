"""Class orders, tasks, label maps."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from flcl import settings
from flcl.data import base
from flcl.data.sequence import stream


def source(count: int, per_class: int = 3) -> base.Source:
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(count), per_class))
    split = base.make_split(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)
    return base.Source("pets", split, split, tuple(f"class {n}" for n in range(count)))


def make(count: int = 10, **values) -> stream.TaskStream:
    return stream.make_stream(settings.Stream(**values), source(count))


def test_equal_tasks():
    made = make(tasks="5")
    assert made.class_order == tuple(range(10)) and made.sizes == (2, 2, 2, 2, 2)
    assert made.tasks[0] == stream.Task(1, (0, 1)) and made.tasks[4] == stream.Task(5, (8, 9))
    assert made.groups == made.tasks and (made.capacity, made.slots) == (16, 8)
    assert made.scenario == "cil"


def test_listed_tasks():
    made = make(tasks="4, 2,2,2")
    assert [task.labels for task in made.groups] == [(0, 1, 2, 3), (4, 5), (6, 7), (8, 9)]
    assert [task.index for task in made.groups] == [1, 2, 3, 4]


def test_joint_trains_once_and_evaluates_apart():
    made = make(tasks="5", joint=True)
    assert made.tasks == (stream.Task(1, tuple(range(10))),)
    assert made.groups == make(tasks="5").groups


def test_room_doubles_and_depends_on_the_tasks_so_far():
    assert make().sized(5) == make()  # 16 classes and 8 tasks have room at first
    made = make(capacity=3)  # tasks of two classes
    assert [made.sized(k).capacity for k in (1, 2, 3, 4, 5)] == [3, 6, 6, 12, 12]
    small = dataclasses.replace(made, slots=1)
    assert [small.sized(k).slots for k in (1, 2, 3, 4, 5)] == [1, 2, 4, 4, 8]
    assert make(tasks="1,3,6").trained_rows(make(tasks="1,3,6").tasks[1]) == 4
    assert make(tasks="1,3,6").trained_rows(make(tasks="1,3,6").tasks[2]) == 8
    joint = make(joint=True)
    assert (joint.capacity, joint.task_slots, joint.sized(1).capacity) == (10, 1, 10)
    # Exactly that of the tasks, as in a run of an older version.
    exact = make(tasks="1,3,6").exact()
    assert (exact.capacity, exact.task_slots, exact.trained_rows(exact.tasks[1])) == (10, 3, 6)


def test_a_stream_with_one_more_task_is_the_one_that_planned_it():
    longer = stream.make_stream(settings.Stream(tasks="2,2,4"), source(8))
    shorter = stream.make_stream(settings.Stream(tasks="2,2"), source(4)).with_task(4)
    assert shorter == longer and shorter.fingerprint == longer.fingerprint
    old = make(4, tasks="2").exact().with_task(3)
    assert (old.capacity, old.slots, old.rows, old.sizes) == (4, 2, 2, (2, 2, 3))
    assert (old.sized(2).capacity, old.sized(3).capacity, old.sized(3).slots) == (4, 8, 4)
    assert old.trained_rows(old.tasks[1]) == 2 and old.trained_rows(old.tasks[2]) == 4


def test_seeded_orders_are_those_of_the_field():
    # numpy.random.seed(N); numpy.random.permutation(count), as published code does.
    np.random.seed(1993)
    expected = np.random.permutation(100)
    assert make(100, class_order="seed:1993").class_order == tuple(expected)
    # The order of CIFAR-100 that such code prints.
    assert make(100, class_order="seed:1993").class_order[:5] == (68, 56, 78, 8, 23)
    assert make(class_order="seed:0").class_order != make(class_order="seed:1").class_order


def test_explicit_order_maps_labels():
    made = make(4, class_order=" 3, 1,0,2", tasks="2")
    assert made.class_order == (3, 1, 0, 2)
    assert made.groups[0].labels == (0, 1)  # labels are positions, whatever the order
    labels = made.labels_of(np.array([0, 1, 2, 3, 4, -1, 99]))
    np.testing.assert_array_equal(labels, [2, 1, 3, 0, -1, -1, -1])
    assert labels.dtype == np.int32
    # label -> source class id -> label
    np.testing.assert_array_equal(made.labels_of(np.array(made.class_order)), range(4))


def test_indices_are_those_of_a_naive_search():
    data = source(6, per_class=5)
    made = stream.make_stream(settings.Stream(class_order="seed:3", tasks="3"), data)
    found = made.indices(data.train, (4, 0, 5))
    assert list(found) == [4, 0, 5]
    for label, positions in found.items():
        wanted = made.class_order[label]
        naive = [n for n, of_image in enumerate(data.train.labels) if of_image == wanted]
        assert positions.tolist() == naive


def test_indices_of_all_tasks_cover_every_image_once():
    data = source(6)
    made = stream.make_stream(settings.Stream(tasks="3"), data)
    found = [made.indices(data.test, task.labels) for task in made.groups]
    everything = np.concatenate([rows for part in found for rows in part.values()])
    assert sorted(everything) == list(range(18))


def test_indices_of_a_class_without_images_are_empty():
    data = source(4)
    made = stream.make_stream(settings.Stream(tasks="2"), data)
    few = base.make_split(np.zeros((2, 1, 1, 1), np.uint8), [0, 3])
    assert [len(rows) for rows in made.indices(few, range(4)).values()] == [1, 0, 0, 1]


def test_json_and_back():
    made = make(class_order="seed:7", tasks="4,2,2,2", capacity=12, joint=True)
    copy = stream.TaskStream.from_dict(json.loads(json.dumps(made.to_dict())))
    assert copy == made and copy.fingerprint == made.fingerprint
    assert copy.tasks == made.tasks
    for wrong in ({"order": [1]}, {}):
        values = {**made.to_dict(), **wrong}
        if not wrong:
            del values["sizes"]
        with pytest.raises(ValueError, match="entry '(order|sizes)' is missing or unknown"):
            stream.TaskStream.from_dict(values)


def test_fingerprint_tells_streams_apart():
    variants = [
        {},
        {"tasks": "2"},
        {"tasks": "4,2,2,2"},
        {"class_order": "seed:1"},
        {"joint": True},
        {"capacity": 11},
    ]
    prints = {make(**variant).fingerprint for variant in variants}
    assert len(prints) == len(variants)
    assert make(class_order="0,1,2,3,4,5,6,7,8,9").fingerprint == make().fingerprint
    assert all(len(one) == 64 for one in prints)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("0,1,1,3", "class 1 named twice; each of 0 to 3 is needed once"),
        ("0,1,2", "class 3 missing"),
        ("0,1,2,4", "class 4 unknown"),
        ("0,1,2,3,9", "class 9 unknown"),
        ("2", "class 0, 1, 3 missing"),
        ("", "accepted are natural, seed:N, or all class ids"),
        ("random", "accepted are natural"),
        ("seed:", "accepted are natural"),
        ("seed:-1", "accepted are natural"),
        ("seed:1.5", "accepted are natural"),
        ("0,1,,3", "accepted are natural"),
        ("0,1,2,-3", "accepted are natural"),
        ("0;1;2;3", "accepted are natural"),
        ("seed:4294967296", "seeds go up to 4294967295"),
    ],
)
def test_wrong_orders_are_refused(order, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(4, class_order=order, tasks="2")
    assert str(caught.value).startswith("stream.class_order=")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("3", "10 classes do not divide into 3 equal tasks; .* such as 4,3,3"),
        ("11", "more tasks than classes"),
        ("4,2,2", "adds up to 8 classes, but the data has 10"),
        ("4,2,2,2,2", "adds up to 12"),
        ("0", "accepted are a number of equal tasks"),
        ("5,0,5", "accepted are a number"),
        ("", "accepted are a number"),
        ("five", "accepted are a number"),
        ("-5", "accepted are a number"),
        ("5,", "accepted are a number"),
        ("2.5", "accepted are a number"),
    ],
)
def test_wrong_tasks_are_refused(tasks, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(tasks=tasks)
    assert str(caught.value).startswith("stream.tasks=") and "\n" not in str(caught.value)


def test_long_values_are_shortened_in_messages():
    order = ",".join(map(str, [0, 0, *range(2, 100)]))
    with pytest.raises(ValueError, match="class 0 named twice") as caught:
        make(100, class_order=order)
    assert len(str(caught.value)) < 200


# Domains.

NAMES = ("art", "cartoon", "photo", "sketch")


def domain_source(classes=3, names=NAMES, per_cell=2, drop=(), drop_test=()) -> base.Source:
    """Shuffled images of every class and domain; `drop` leaves (class, domain) pairs out."""
    cells = [(c, d) for c in range(classes) for d in range(len(names))] * per_cell
    splits = []
    for left_out in (drop, drop_test):
        kept = [cell for cell in cells if cell not in left_out]
        kept = np.random.RandomState(0).permutation(np.array(kept))
        pixels = np.zeros((len(kept), 1, 1, 1), np.uint8)
        splits.append(base.make_split(pixels, kept[:, 0], kept[:, 1]))
    classes = tuple(f"class {n}" for n in range(classes))
    return base.Source("pictures", splits[0], splits[1], classes, tuple(names))


def make_dil(data=None, **values) -> stream.TaskStream:
    values = {"scenario": "dil", "tasks": "domains", **values}
    return stream.make_stream(settings.Stream(**values), data or domain_source())


def test_every_domain_is_a_task_of_all_classes():
    made = make_dil()
    assert made.groups == made.tasks
    assert made.tasks == tuple(stream.Task(d + 1, (0, 1, 2), (d,)) for d in range(4))
    assert made.domain_order == (0, 1, 2, 3) and made.sizes == (3, 3, 3, 3)
    assert make_dil(tasks="4") == made


@pytest.mark.parametrize(
    "order", ["photo,sketch, art,cartoon", "2,3,0,1", " photo ,sketch,art,cartoon"]
)
def test_domains_in_a_given_order(order):
    made = make_dil(domain_order=order)
    assert made.domain_order == (2, 3, 0, 1)
    assert [task.domains for task in made.tasks] == [(2,), (3,), (0,), (1,)]
    assert made.names(("a", "b", "c"), NAMES) == ("photo", "sketch", "art", "cartoon")


def test_domains_in_a_seeded_order():
    np.random.seed(5)
    assert make_dil(domain_order="seed:5").domain_order == tuple(np.random.permutation(4))


def test_joint_domains_are_one_task_and_evaluated_apart():
    made = make_dil(joint=True, domain_order="3,1,0,2")
    assert made.tasks == (stream.Task(1, (0, 1, 2), (3, 1, 0, 2)),)
    assert made.groups == make_dil(domain_order="3,1,0,2").groups


def test_names_of_class_groups_follow_the_class_order():
    made = make(4, class_order="3,1,0,2", tasks="1,3")
    assert made.names(("a", "b", "c", "d"), ()) == ("d", "b, a, c")


def test_indices_in_domains_are_those_of_a_naive_search():
    data = domain_source(per_cell=3)
    made = make_dil(data, class_order="2,0,1")
    for domains in [(1,), (3, 0), None, ()]:
        found = made.indices(data.train, (1, 2), domains)
        assert list(found) == [1, 2]
        for label, positions in found.items():
            naive = [
                n
                for n, (c, d) in enumerate(zip(data.train.labels, data.train.domains, strict=True))
                if c == made.class_order[label] and (domains is None or d in domains)
            ]
            assert positions.tolist() == naive and len(naive) == 3 * len(domains or range(4)) * (
                domains != ()
            )


def test_tasks_of_domains_cover_every_image_once():
    data = domain_source()
    made = make_dil(data, domain_order="seed:1")
    found = [made.indices(data.test, task.labels, task.domains) for task in made.tasks]
    everything = np.concatenate([rows for part in found for rows in part.values()])
    assert sorted(everything) == list(range(24))


def test_new_classes_come_from_all_domains():
    data = domain_source()
    made = stream.make_stream(settings.Stream(tasks="3"), data)
    assert [task.domains for task in made.tasks] == [None] * 3 and made.domain_order == ()
    assert {len(rows) for rows in made.indices(data.train, (0, 1, 2)).values()} == {8}


def test_domains_in_json_and_back():
    made = make_dil(domain_order="3,1,0,2")
    values = json.loads(json.dumps(made.to_dict()))
    assert values["domain_order"] == [3, 1, 0, 2]
    copy = stream.TaskStream.from_dict(values)
    assert copy == made and copy.tasks == made.tasks
    assert copy.fingerprint == made.fingerprint != make_dil().fingerprint


def test_streams_of_classes_keep_their_fingerprint():
    # Of the canonical JSON, computed outside of this library.
    assert "domain_order" not in make().to_dict()
    text = '{"capacity":4,"class_order":[0,1,2,3],"joint":false,"scenario":"cil","sizes":[2,2]}'
    assert make(4, tasks="2").exact().fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_sizes_without_data():
    source = base.placeholder(5, 3)
    assert source.class_names == tuple("01234") and source.domain_names == tuple("012")
    assert [task.domains for task in make_dil(source).tasks] == [(0,), (1,), (2,)]
    assert base.placeholder(2).domain_names == ()
    named = make_dil(base.placeholder(5, ("photo", "art")), domain_order="art,photo")
    assert named.domain_order == (1, 0)


def test_a_domain_may_lack_a_class():
    data = domain_source(drop=((1, 2), (1, 0)))
    made = make_dil(data)
    counts = [[len(v) for v in made.indices(data.train, t.labels, t.domains).values()]
              for t in made.tasks]  # fmt: skip
    assert counts == [[2, 0, 2], [2, 2, 2], [2, 0, 2], [2, 2, 2]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks": "5"}, "stream.tasks='5': .*every domain is a task.*has 4; use .*=domains"),
        ({"tasks": "2,2"}, "use stream.tasks=domains"),
        ({"domain_order": "photo"}, "domain art, cartoon, sketch missing; each of 0 to 3 .art, c"),
        ({"domain_order": "0,1,2,2"}, "domain photo named twice"),
        ({"domain_order": "0,1,2,4"}, "domain 4 unknown"),
        ({"domain_order": "photo,art,sketch,cartoons"}, "domain 'cartoons' unknown.*'cartoon'"),
        ({"domain_order": ""}, "domain '' unknown; accepted are natural, seed:N, or all of art"),
        ({"domain_order": "seed:4294967296"}, "seeds go up to"),
    ],
)
def test_wrong_domain_streams_are_refused(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_dil(**values)
    assert str(caught.value).startswith("stream.") and "\n" not in str(caught.value)


def test_data_without_domains_has_no_stream_of_them():
    with pytest.raises(ValueError, match="scenario='dil': pets has no domains, and at least two"):
        make_dil(source(3))
    with pytest.raises(ValueError, match="pictures has the one domain 'photo', and at least two"):
        make_dil(domain_source(names=("photo",)))


def test_a_task_without_images_is_named():
    gone = tuple((c, 2) for c in range(3))
    with pytest.raises(ValueError, match=r"task 3 \(domain photo\) has no test images"):
        make_dil(domain_source(drop_test=gone))
    with pytest.raises(ValueError, match=r"task 1 \(domain photo\) has no training images"):
        make_dil(domain_source(drop=gone), domain_order="2,0,1,3")
    gone = tuple((1, d) for d in range(4))
    with pytest.raises(ValueError, match=r"task 2 \(classes class 1\) has no test images"):
        stream.make_stream(settings.Stream(tasks="3"), domain_source(drop_test=gone))


@pytest.mark.parametrize(
    ("count", "tasks", "sizes"),
    [(6, "per:2", (2, 2, 2)), (7, "per:2", (2, 2, 3)), (3, "per:5", (3,)), (4, "per:1", (1,) * 4)],
)
def test_tasks_of_so_many_classes_for_any_number_of_them(count, tasks, sizes):
    assert make(count, tasks=tasks).sizes == sizes


@pytest.mark.parametrize("tasks", ["per:0", "per:", "per:2,2", "per:-1"])
def test_other_forms_are_refused(tasks):
    with pytest.raises(ValueError, match=f"stream.tasks='{tasks}': .*or per:2 for two classes"):
        make(6, tasks=tasks)


def test_a_removal_changes_no_task_and_no_fingerprint():
    made = make(4, tasks="2", class_order="3,1,0,2")
    less = made.without([0, 3])
    assert less.removed == (0, 2) and less.left((0, 1, 2, 3)) == (1, 3)
    assert less.to_dict() == made.to_dict() and less.fingerprint == made.fingerprint
    assert less.tasks == made.tasks and less != made
    for longer in (less.sized(2), less.exact(), less.with_task(2)):
        assert longer.removed == (0, 2)
