"""InfLoRA: its factors against naive sums and spaces, and what it leaves as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl.methods.peers import inflora
from flcl.models import vit

KEY = jax.random.key(0)


def surveyed(method, memory, task, images):
    """The memory with the sums over the images."""
    batch = {"images": images, "labels": jnp.zeros(len(images), int), "weights": jnp.ones(6)}
    sums = method.survey(memory, None, batch)
    return method.with_survey(memory, task, sums), sums


@pytest.fixture(scope="module")
def taught(build, images, moved):
    """The method, and the memory before and after each of two tasks, with their images."""
    method = build("inflora", lora__rank=3, lora__energy=0.9, lora__final_energy=0.9)
    memory, steps = method.init(KEY), []
    for task in method.stream.tasks[:2]:
        pictures = images if task.index == 1 else 255 - images[::-1]
        before = memory
        memory, _ = surveyed(method, memory, task, pictures)
        trainable, frozen = method.begin(memory, task, KEY)
        trained = moved(trainable, task.index)
        memory = method.end(memory, task, trained)
        memory, sums = surveyed(method, memory, task, pictures)
        steps.append((task, before, trained, frozen, memory, sums, pictures))
    return method, steps


def test_the_moments_are_those_of_the_normed_tokens(build, images):
    """k and v read what the first norm of their block gives."""
    method = build("inflora")
    memory = method.init(KEY)
    _, sums = surveyed(method, memory, method.stream.tasks[0], images)
    _, state = method.network.apply(
        {"params": memory["trunk"]},
        method._normalised(images),
        capture_intermediates=lambda module, _: module.name == "norm1",
        mutable="intermediates",
    )
    for block in ("block_00", "block_01"):
        x = np.asarray(state["intermediates"][block]["norm1"]["__call__"][0], np.float64)
        want = sum(row[:, None] * row[None] for image in x for row in image) / x.shape[1]
        assert set(sums["moments"][block]) == {"q"}
        np.testing.assert_allclose(sums["moments"][block]["q"], want, rtol=1e-3, atol=1e-3)
    assert sums["images"] == 6


def test_only_the_maps_of_one_input_share_their_directions(build, images):
    method = build("inflora", lora__sites=("v", "k", "fc1"))
    memory, sums = surveyed(method, method.init(KEY), method.stream.tasks[0], images)
    assert set(sums["moments"]["block_00"]) == {"q", "fc1"}
    columns = memory["design"]["block_00"]
    np.testing.assert_array_equal(columns["k"], columns["v"])
    assert np.abs(columns["fc1"] - columns["v"]).max() > 1e-2


def test_a_task_starts_where_the_last_one_ended_and_ends_as_it_was_trained(taught, images):
    method, steps = taught
    for task, before, trained, frozen, memory, *_ in steps:
        start = method.begin(before | {"design": frozen["design"]}, task, KEY)[0]
        for trainable, want in ((start, before), (trained, memory)):
            model, _ = method.model(method.phase(task), trainable, frozen, KEY, jnp.ones(()))
            got = method.encode(method._normalised(images), **model)
            np.testing.assert_allclose(got, method.features(want, images), atol=2e-5)
        assert (
            np.abs(method.features(memory, images) - method.features(before, images)).max() > 1e-3
        )


def test_only_the_second_factor_and_the_head_train(taught):
    method, steps = taught
    for task, _, trained, frozen, memory, *_ in steps:
        assert set(trained) == {"head", "lora"} == set(method.parts(method.phase(task)))
        assert {n for sites in trained["lora"].values() for s in sites.values() for n in s} == {"b"}
        for block, sites in memory["lora"].items():
            for site, factors in sites.items():
                kept = factors["a"][task.index - 1]
                np.testing.assert_array_equal(kept, frozen["design"][block][site])


def test_the_first_factor_is_orthogonal_to_the_old_inputs(taught):
    """Its columns are in no direction that is occupied, and each has the length 1 / sqrt 3."""
    _, (first, second) = taught
    for memory, frozen, empty in ((first[1], first[3], True), (second[1], second[3], False)):
        for block, columns in frozen["design"].items():
            occupied = np.asarray(memory["occupied"][block]["q"], np.float64)
            assert (np.trace(occupied) == 0) == empty
            a = np.asarray(columns["k"], np.float64)
            np.testing.assert_allclose(a.T @ a, np.eye(3) / 3, atol=1e-5)
            np.testing.assert_allclose(occupied @ a, 0.0, atol=1e-4)


def test_old_inputs_in_the_occupied_space_are_mapped_as_before(taught):
    """dW of task 2 maps the occupied part of an input of task 1 to zero."""
    _, (first, second) = taught
    x = np.asarray(first[4]["occupied"]["block_00"]["q"])
    newest = second[4]["lora"]["block_00"]["k"]
    update = np.asarray(newest["a"][1] @ newest["b"][1].T)
    assert np.abs(update).max() > 1e-3
    np.testing.assert_allclose(x @ update, 0.0, atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999, 1.0])
def test_occupied_directions_are_the_fewest_that_hold_a_share(share):
    generator = np.random.default_rng(0)
    scales = np.array([9.0, 5.0, 2.0, 1.0, 0.2])
    basis = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    second = basis @ np.diag(scales) @ basis.T
    got = inflora.enlarged(second, np.zeros((5, 5)), share)
    held, count = 0.0, 0
    while held < share * np.sum(scales**2) * (1 - 1e-12):
        held += scales[count] ** 2
        count += 1
    np.testing.assert_allclose(got, basis[:, :count] @ basis[:, :count].T, atol=1e-9)
    # With these directions occupied the same inputs need no more.
    np.testing.assert_allclose(inflora.enlarged(second, got, share), got, atol=1e-9)
    # The rest of the space is what the next task may use.
    if count < 5:
        want = basis[:, count : count + 1] / np.sqrt(3)
        first = inflora.design(second, got, 1)
        np.testing.assert_allclose(np.abs(first.T @ want), 1 / 3, atol=1e-9)


def test_a_space_that_is_full_stays_full():
    second = np.diag([3.0, 2.0, 1.0])
    np.testing.assert_allclose(inflora.enlarged(second, np.eye(3), 1.0), np.eye(3))


def test_the_share_grows_from_task_to_task(build, images):
    method = build("inflora", lora__energy=0.4, lora__final_energy=1.0)
    memory, sizes = method.init(KEY), []
    for task in method.stream.tasks:
        memory, _ = surveyed(method, memory, task, images)
        memory = method.end(memory, task, method.begin(memory, task, KEY)[0])
        memory, sums = surveyed(method, memory, task, images)
        second = np.asarray(sums["moments"]["block_00"]["q"], np.float64) / 6
        occupied = np.asarray(memory["occupied"]["block_00"]["q"], np.float64)
        held = 1 - np.sum((second - occupied @ second) ** 2) / np.sum(second**2)
        assert held >= 0.4 + 0.6 * (task.index - 1) / 3 - 1e-4
        sizes.append(np.trace(occupied))
    assert sizes == sorted(sizes)


def test_stored_parts_put_the_memory_back(taught, calibrated):
    method, steps = taught
    restored, memory = method.init(KEY), method.init(KEY)
    for task, *_, images in steps:
        memory, _ = surveyed(method, memory, task, images)
        trainable, _ = method.begin(memory, task, KEY)
        memory = method.end(memory, task, jax.tree.map(lambda v: v, trainable))
        memory, _ = surveyed(method, memory, task, images)
        memory = calibrated(method, memory, task)
        restored = method.restore(restored, task, method.added(memory, task))
        jax.tree.map(np.testing.assert_array_equal, restored, memory)


def test_counts(build):
    method = build("inflora", lora__rank=3)
    assert method.parameters_per_task() == 3 * 2 * 2 * (64 + 64)
    described = method.describe()
    assert described["trained_parameters"] == [3 * 64 * 4 + 6 * 65] * 3
    assert set(method.shapes) == {vit.block_name(n) for n in range(2)}
