"""Trains the embedded tiny ViT on the embedded Fashion-MNIST: `python make_tiny_vit.py [OUT]`.

The quickstart uses its features for digits, which it has never seen. So it learns from views that
differ much more than photographs of clothing: edges, silhouettes, inverted and blurred images.
"""

import pathlib
import sys
import time

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors.numpy

from flcl import settings
from flcl.data import sources
from flcl.models import vit

MODEL = settings.ViT(variant="Nano/4")
SIZE, CLASSES, POSES = 16, 10, 8
BATCH, STEPS, RATE, DECAY, PIXELS = 96, 2000, 2e-3, 0.05, 5.0
OUT = pathlib.Path(__file__).parent / "tiny_vit.safetensors"


def load(source: str, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N, 16, 16, 3] and labels [N] of an embedded data set."""
    data = settings.Data(source=source, image_size=SIZE, channels=3)
    both = sources.load_source(data)
    split = both.train if train else both.test
    return np.asarray(split.images), np.asarray(split.labels)


def pose(images: jax.Array, which: jax.Array) -> jax.Array:
    """Each image of [B, S, S] in one of eight poses: four quarter turns, plain or mirrored."""
    turned = [jnp.rot90(images, k, (1, 2)) for k in range(4)]
    table = jnp.stack([*turned, *(t[:, :, ::-1] for t in turned)])
    return table[which, jnp.arange(len(images))]


def warp(key: jax.Array, image: jax.Array) -> jax.Array:
    """Random resized crop, small rotation and shear of one image [S, S], bilinear."""
    keys = jax.random.split(key, 4)
    angle = jax.random.uniform(keys[0], minval=-0.25, maxval=0.25)
    size = jnp.exp(jax.random.uniform(keys[1], (2,), minval=-0.5, maxval=0.25))
    shift = jax.random.uniform(keys[2], (2,), minval=-1.5, maxval=1.5)
    shear = jax.random.uniform(keys[3], minval=-0.2, maxval=0.2)
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    matrix = turn @ jnp.array([[1.0, shear], [0.0, 1.0]]) * size[None]
    centre = (SIZE - 1) / 2
    grid = jnp.stack(jnp.meshgrid(jnp.arange(SIZE), jnp.arange(SIZE), indexing="ij")) - centre
    where = jnp.einsum("ij,jhw->ihw", matrix, grid) + centre + shift[:, None, None]
    return jax.scipy.ndimage.map_coordinates(image, where, order=1, mode="constant")


def edges(image: jax.Array) -> jax.Array:
    """Outlines of one image [S, S], from 0 to 1; they make clothing similar to pen strokes."""
    down, across = jnp.gradient(image)
    strength = jnp.sqrt(down**2 + across**2 + 1e-6)
    return strength / jnp.maximum(strength.max(), 0.1)


def blur(image: jax.Array) -> jax.Array:
    """One image [S, S] at half its resolution, like digits that were enlarged from 8x8."""
    small = jax.image.resize(image, (SIZE // 2, SIZE // 2), "linear")
    return jnp.clip(jax.image.resize(small, (SIZE, SIZE), "cubic"), 0, 1)


def view(key: jax.Array, image: jax.Array) -> jax.Array:
    """A random view of one grey image [S, S] with values from 0 to 1."""
    keys = jax.random.split(key, 8)
    chance = jax.random.uniform(keys[0], (5,))
    image = warp(keys[1], image)
    image = jnp.where(chance[0] < 0.3, edges(image), image)
    level = jax.random.uniform(keys[2], minval=0.15, maxval=0.6)
    image = jnp.where(chance[1] < 0.2, jax.nn.sigmoid((image - level) * 20), image)
    image = jnp.where(chance[2] < 0.5, blur(image), image)
    image = jnp.where(chance[3] < 0.15, 1 - image, image)
    gain = jnp.exp(jax.random.uniform(keys[3], minval=-0.5, maxval=0.3))
    image = (image - 0.5) * gain + 0.5 + jax.random.uniform(keys[4], minval=-0.1, maxval=0.1)
    noise = 0.05 * jax.random.normal(keys[5], image.shape) * (chance[4] < 0.3)
    return jnp.clip(image + noise, 0, 1)


def features(params, grey: jax.Array) -> jax.Array:
    """[B, S, S] with values from 0 to 1 -> [B, width]."""
    images = jnp.broadcast_to(grey[..., None] * 2 - 1, (*grey.shape, 3))
    return vit.VisionTransformer(MODEL, SIZE).apply({"params": params}, images)


def loss(params, key, images, labels):
    """Loss of class and pose of a random view of each image, and of its pixels at half resolution.

    Clothing alone would need neither: features that ignore the pose could not distinguish a 6 from
    a 9, and features for clothing only would lose the strokes of a digit.
    """
    keys = jax.random.split(key, len(images) + 1)
    which = jax.random.randint(keys[-1], labels.shape, 0, POSES)
    views = jax.vmap(view)(keys[:-1], pose(images, which))
    outputs = features(params["trunk"], views)
    target = labels * POSES + which
    classes = optax.softmax_cross_entropy_with_integer_labels(outputs @ params["head"], target)
    half = SIZE // 2
    small = views.reshape(-1, half, 2, half, 2).mean((2, 4)).reshape(len(views), -1)
    error = jnp.mean((outputs @ params["decoder"] - small + small.mean()) ** 2) / small.var()
    return classes.mean() + PIXELS * error, (classes.mean(), error)


def train(images: np.ndarray, labels: np.ndarray):
    """Parameters after `STEPS` steps of Adam on grey images [N, S, S] from 0 to 1."""
    width = MODEL.sizes.width
    keys = jax.random.split(jax.random.key(0), 3)
    trunk = jax.jit(lambda key: vit.init_parameters(MODEL, SIZE, key))(keys[0])
    params = {"trunk": trunk}
    for name, k, columns in (
        ("head", keys[1], CLASSES * POSES),
        ("decoder", keys[2], SIZE**2 // 4),
    ):
        params[name] = 0.1 * jax.random.normal(k, (width, columns)) * width**-0.5
    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, STEPS // 20, STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=DECAY))
    images, labels = jnp.asarray(images), jnp.asarray(labels)

    @jax.jit
    def step(params, state, key):
        draw, views = jax.random.split(key)
        rows = jax.random.choice(draw, len(images), (BATCH,), replace=False)
        (_, parts), slope = jax.value_and_grad(loss, has_aux=True)(
            params, views, images[rows], labels[rows]
        )
        updates, state = optimizer.update(slope, state, params)
        return optax.apply_updates(params, updates), state, parts

    state, began = optimizer.init(params), time.time()
    for index in range(STEPS):
        params, state, parts = step(params, state, jax.random.fold_in(jax.random.key(1), index))
        if index % 250 == 249:
            passed = time.time() - began
            print(f"{index + 1} steps, {passed:.0f} s:", *map(float, parts), flush=True)
    return jax.device_get(params)


def save(trunk, path: pathlib.Path) -> None:
    """Saves in half precision, with the names of our own tree."""
    flat = flax.traverse_util.flatten_dict(trunk, sep="/")
    sizes = MODEL.sizes
    about = {"format": "flcl", "heads": str(sizes.heads), "normalize": "half"}
    about["layer_norm_eps"] = str(MODEL.layer_norm_eps)
    half = {name: np.asarray(value, np.float16) for name, value in flat.items()}
    safetensors.numpy.save_file(half, path, metadata=about)


def probes(params) -> dict[str, float]:
    """Accuracies on test images: of its own classes, and of the unseen digits with two heads."""
    extract = jax.jit(features)

    def of(source, train):
        images, labels = load(source, train)
        return np.asarray(extract(params["trunk"], images[..., 0] / np.float32(255))), labels

    outputs, labels = of("fashion16", train=False)
    answers = (outputs @ params["head"]).reshape(-1, CLASSES, POSES)[:, :, 0].argmax(1)
    result = {"fashion16": (answers == labels).mean()}
    (x, y), (x_test, y_test) = of("digits", train=True), of("digits", train=False)
    mean, spread = x.mean(0), x.std(0)
    x, x_test = (x - mean) / spread, (x_test - mean) / spread
    ridge = np.linalg.solve(x.T @ x + 10 * np.eye(x.shape[1]), x.T @ (np.eye(10)[y] - 0.1))
    result["digits, ridge"] = ((x_test @ ridge).argmax(1) == y_test).mean()
    means = np.stack([x[y == c].mean(0) for c in range(10)])
    distance = ((x_test[:, None] - means) ** 2).sum(2)
    result["digits, class mean"] = (distance.argmin(1) == y_test).mean()
    return {name: float(value) for name, value in result.items()}


if __name__ == "__main__":
    pixels, targets = load("fashion16", train=True)
    trained = train(pixels[..., 0] / np.float32(255), targets)
    save(trained["trunk"], pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
    print(probes(trained))
