import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flcl import settings
from flcl.data.selection import everything
from flcl.evaluate import judge as judges
from flcl.evaluate import recipe
from flcl.models.resnet import ResNet18
from flcl.rng import stream_key

SIZE = 6
CAPACITY = 6
COLOURS = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220], [200, 200, 20], [20, 200, 200]])
TINY = settings.Judge(width=4, stages=2, batch_size=32, crop=1, flip=True, learning_rate=0.1)


def blobs(per_class: int, labels=(0, 1, 2, 3), seed: int = 0):
    """Noisy images of one coloured pixel block at a random place per class."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(labels, per_class)
    images = rng.integers(0, 40, (len(classes), SIZE, SIZE, 3))
    for image, label in zip(images, classes, strict=True):
        y, x = rng.integers(0, SIZE - 2, 2)
        image[y : y + 3, x : x + 3] += COLOURS[label] - 30
    order = rng.permutation(len(classes))
    return images.clip(0, 255).astype(np.uint8)[order], classes[order]


def seen_of(*labels) -> np.ndarray:
    return np.isin(np.arange(CAPACITY), labels)


@pytest.fixture(scope="module")
def judge():
    return judges.Judge(TINY, CAPACITY, (SIZE, SIZE, 3), seed=0)


@pytest.fixture(scope="module")
def trained(judge):
    return judge.train(everything(*blobs(40)), steps=40, seed_name="shared")


def test_learns_coloured_blobs(judge, trained):
    images, labels = blobs(50, seed=1)
    assert (judge.predict(trained, images, seen_of(0, 1, 2, 3)) == labels).mean() > 0.9


def test_prediction_ignores_batch_mates_and_padding(judge, trained):
    images, _ = blobs(10, seed=2)  # 40 images: one full batch and a padded one
    seen = seen_of(0, 1, 2, 3)
    whole = judge.predict(trained, images, seen)
    assert whole.shape == (40,) and len(np.unique(whole)) > 1
    for cut in (1, 7, 33):
        np.testing.assert_array_equal(judge.predict(trained, images[:cut], seen), whole[:cut])
    np.testing.assert_array_equal(judge.predict(trained, images[::-1], seen), whole[::-1])
    assert judge.predict(trained, images[:0], seen).shape == (0,)


def test_unseen_classes_are_never_predicted(judge, trained):
    images, labels = blobs(10, seed=3)
    for allowed in ((2,), (1, 5), (0, 3, 4)):
        got = judge.predict(trained, images, seen_of(*allowed))
        assert set(got) <= set(allowed)
    kept = judge.predict(trained, images, seen_of(1, 2))
    both = np.isin(labels, (1, 2))
    assert (kept[both] == labels[both]).mean() > 0.9


def test_same_arguments_give_the_same_bits(judge, trained):
    again = judge.train(everything(*blobs(40)), steps=40, seed_name="shared")
    jax.tree.map(np.testing.assert_array_equal, again, trained)
    other = judge.train(everything(*blobs(40)), steps=2, seed_name="other")
    twin = judge.train(everything(*blobs(40)), steps=2, seed_name="another")
    assert (other["params"]["head"]["kernel"] != twin["params"]["head"]["kernel"]).any()


def test_sets_of_any_size_share_one_compilation(judge, trained, monkeypatch):
    traced = []
    loss = recipe.masked_loss
    monkeypatch.setattr(recipe, "masked_loss", lambda *a: traced.append(1) or loss(*a))
    for labels, per_class, steps in (((0, 1), 30, 3), ((0, 1, 2, 3, 4), 21, 2), ((4,), 3, 1)):
        variables = judge.train(everything(*blobs(per_class, labels)), steps=steps, seed_name="t")
        judge.predict(variables, blobs(per_class)[0], seen_of(*labels))
    assert not traced  # `trained` has traced before
    assert judge._step._cache_size() == judge._predict._cache_size() == 1
    assert judge._init._cache_size() == 1


def test_features_are_those_that_the_head_reads(judge, trained):
    images, _ = blobs(10, seed=3)
    batches = list(judge.features(trained, everything(images)))
    assert [len(batch) for batch in batches] == [32, 8] and batches[0].dtype == np.float32
    head = jax.tree.map(np.asarray, trained["params"]["head"])
    logits = np.concatenate(batches) @ head["kernel"] + head["bias"]
    np.testing.assert_array_equal(
        logits.argmax(axis=1), judge.predict(trained, images, np.ones(CAPACITY, bool))
    )
    assert judge._predict._cache_size() == 1


def test_lazy_images_are_fetched_by_index(judge):
    class Lazy:
        def __init__(self, images):
            self.images = images

        def __len__(self):
            return len(self.images)

        def __getitem__(self, indices):
            assert isinstance(indices, np.ndarray)
            return self.images[indices]

    images, labels = blobs(8)
    lazy = judge.train(everything(Lazy(images), labels), steps=2, seed_name="x")
    plain = judge.train(everything(images, labels), steps=2, seed_name="x")
    jax.tree.map(np.testing.assert_array_equal, lazy, plain)
    seen = seen_of(0, 1, 2, 3)
    np.testing.assert_array_equal(
        judge.predict(plain, Lazy(images), seen), judge.predict(plain, images, seen)
    )


def test_abstract_variables_are_those_of_training(judge, trained):
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), judge.abstract_variables())
    assert described == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), trained)


def test_progress_reports_steps_and_a_falling_loss(judge):
    calls = []
    judge.train(
        everything(*blobs(40)), steps=25, seed_name="p", progress=lambda *call: calls.append(call)
    )
    assert [step for step, _ in calls] == [10, 20, 25]
    assert calls[-1][1] < np.log(4)


def test_first_step_is_the_recipe(judge):
    """One step from the same start, with the loss and update written out."""
    images, labels = blobs(8)  # exactly one batch
    key = jax.device_put(stream_key(0, "one"), judge._everywhere)
    start = judge._init(key)
    order = recipe.batch_order(0, "one", 32).between(0, 32)
    augment_key = jax.random.fold_in(jax.random.fold_in(key, 1), 0)
    batch = recipe.augment(augment_key, jnp.asarray(images[order]), crop=1, flip=True)

    def loss(params):
        variables = {"params": params, "batch_stats": start.batch_stats}
        model = ResNet18(CAPACITY, 4, stages=2)
        logits, _ = model.apply(variables, batch / 127.5 - 1, train=True, mutable=["batch_stats"])
        chances = jax.nn.log_softmax(logits[:, :4])  # classes 4 and 5 are unseen
        return -jnp.mean(chances[jnp.arange(32), labels[order]])

    quick = {"xla_backend_optimization_level": 0}
    grads = jax.jit(jax.grad(loss), compiler_options=quick)(start.params)

    def update(path, value, grad):
        decay = 5e-4 * value if path[-1].key == "kernel" else 0.0
        return value - 0.1 * (grad + decay)

    wanted = jax.tree_util.tree_map_with_path(update, start.params, grads)
    got = judge.train(everything(images, labels), steps=1, seed_name="one")["params"]
    for mine, reference in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-3, atol=1e-4)


def test_several_devices_train_the_same_judge_without_replication(judge):
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    wide = judges.Judge(
        TINY, CAPACITY, (SIZE, SIZE, 3), seed=0, shard=lambda batch: jax.device_put(batch, spread)
    )
    lowered = _lower_step(wide)
    wide._step = lowered.compile()  # so that the same program is inspected and run
    images, labels = blobs(16)
    one = judge.train(everything(images, labels), steps=2, seed_name="m")
    several = wide.train(everything(images, labels), steps=2, seed_name="m")
    for leaf, reference in zip(jax.tree.leaves(several), jax.tree.leaves(one), strict=True):
        assert leaf.is_fully_replicated and len(leaf.sharding.device_set) == jax.device_count()
        np.testing.assert_allclose(leaf, reference, rtol=0, atol=1e-3)
    seen = seen_of(0, 1, 2, 3)
    np.testing.assert_array_equal(
        wide.predict(several, images, seen),
        judge.predict(jax.tree.map(np.asarray, several), images, seen),
    )
    assert "all-gather" not in wide._step.as_text()
    per_device = wide._step.cost_analysis()["flops"]
    # Parameters are updated on every device; a replicated batch would give as many times more.
    assert per_device * jax.device_count() < 1.5 * _lower_step(judge).cost_analysis()["flops"]


def _lower_step(judge):
    """The training step of `judge` before compilation."""
    batch = {"images": np.zeros((32, SIZE, SIZE, 3), np.uint8), "labels": np.zeros(32, np.int32)}
    traced = (stream_key(0, "f"), seen_of(0, 1), np.int32(2))
    key, seen, total = jax.device_put(traced, judge._everywhere)
    return judge._step.lower(judge._init(key), judge._shard(batch), seen, key, total)


def test_steps_follow_the_plain_size():
    judge = settings.Judge(epochs=200.0, batch_size=256, oversample=5.0)
    assert judges.steps_for(judge, 50_000) == 39_062
    assert judges.steps_for(settings.Judge(epochs=0.5, batch_size=256), 10) == 1


class _Fixed:
    """Stands for a judge whose answers are known."""

    num_classes = CAPACITY

    def __init__(self, answers):
        self.answers = np.array(answers)

    def predict(self, variables, images, seen):
        self.seen = seen
        return self.answers


def test_fidelity_per_class_and_task():
    judge = _Fixed([0, 0, 1, 2, 2, 0, 0])
    labels = np.array([0, 0, 0, 2, 2, 2, 1])
    result = judges.fidelity(judge, {}, everything(np.zeros(7), labels), [(0, 1), (2,), (4, 5)])
    assert result["per_class"] == {0: pytest.approx(2 / 3), 1: 0.0, 2: pytest.approx(2 / 3)}
    assert result["per_task"] == [0.5, pytest.approx(2 / 3), None]
    np.testing.assert_array_equal(judge.seen, seen_of(0, 1, 2))


@pytest.mark.parametrize(
    ("images", "labels", "steps", "words"),
    [
        ((4, SIZE, SIZE, 3), [0, 1, 2, 6], 1, "0..5; raise stream.capacity"),
        ((4, SIZE, SIZE, 3), [0, -1, 2, 3], 1, "-1..3"),
        ((4, SIZE, SIZE, 3), [0, 1], 1, "4 images and 2 labels"),
        ((0, SIZE, SIZE, 3), [], 1, "at least one"),
        ((4, SIZE, SIZE, 1), [0, 1, 2, 3], 1, "data.channels"),
        ((4, SIZE, SIZE, 3), [0, 1, 2, 3], 0, "at least 1 optimiser step"),
    ],
)
def test_bad_training_sets_are_named(judge, images, labels, steps, words):
    with pytest.raises(ValueError, match=words):
        judge.train(everything(np.zeros(images, np.uint8), labels), steps=steps, seed_name="bad")


def test_other_bad_input_is_named(judge, trained):
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    with pytest.raises(ValueError, match="expected \\[6\\]"):
        judge.predict(trained, images, np.ones(5, bool))
    with pytest.raises(ValueError, match="at least one True"):
        judge.predict(trained, images, np.zeros(6, bool))
    with pytest.raises(ValueError, match="expected uint8"):
        judge.predict(trained, images.astype(np.float32), seen_of(0))
    with pytest.raises(FloatingPointError, match=r"judge\.learning_rate"):
        judge._report(3, float("nan"), None)
