"""The table of sources, and the two that are embedded."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

from flcl import settings
from flcl.data import base, sources


def nearest_mean_accuracy(source) -> float:
    """Test accuracy of the class whose training mean is nearest: labels fit images in both."""
    train = source.train.images.reshape(len(source.train.labels), -1).astype(float)
    test = source.test.images.reshape(len(source.test.labels), -1).astype(float)
    count = len(source.class_names)
    means = np.stack([train[source.train.labels == c].mean(0) for c in range(count)])
    distances = ((test[:, None] - means) ** 2).sum(-1)
    return (distances.argmin(1) == source.test.labels).mean()


def test_digits():
    source = sources.load_source(settings.Data())
    assert source.class_names == tuple("0123456789")
    assert source.train.images.shape == (1437, 8, 8, 1)
    assert source.test.images.shape == (360, 8, 8, 1)
    assert source.train.images.dtype == np.uint8
    everything = np.concatenate([source.train.images, source.test.images])[..., 0]
    labels = np.concatenate([source.train.labels, source.test.labels])
    # As published, with 0..16 stretched to 0..255, each image exactly once.
    published = datasets.load_digits()
    expected = np.floor(published.images * 255 / 16 + 0.5).astype(np.uint8)
    rows = {(image.tobytes(), int(label)) for image, label in zip(everything, labels, strict=True)}
    assert rows == {
        (image.tobytes(), int(label))
        for image, label in zip(expected, published.target, strict=True)
    }
    assert len(everything) == len(published.target)
    assert everything.min() == 0 and everything.max() == 255
    # Stratified: a fifth of each class.
    share = np.bincount(source.test.labels) / np.bincount(labels)
    assert np.abs(share - 0.2).max() < 0.005
    assert nearest_mean_accuracy(source) > 0.85


def test_fashion16():
    source = sources.load_source(settings.Data(source="fashion16", image_size=16))
    assert source.train.images.shape == (5000, 16, 16, 1)
    assert source.test.images.shape == (1000, 16, 16, 1)
    np.testing.assert_array_equal(np.bincount(source.train.labels), [500] * 10)
    np.testing.assert_array_equal(np.bincount(source.test.labels), [100] * 10)
    assert source.class_names[0] == "T-shirt/top" and source.class_names[9] == "Ankle boot"
    assert nearest_mean_accuracy(source) > 0.6
    # Shoes are flat and wide, trousers are tall and narrow.
    means = [source.train.images[source.train.labels == c].mean(0)[..., 0] for c in range(10)]
    assert means[1][:, :3].mean() < 10 < means[7][10:, :3].mean()


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("fashion16:0-7", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("fashion16:bag,boot", [8, 9]),
        ("fashion16: Ankle Boot, 3-4 ,shirt", [9, 3, 4, 6]),  # in this order
        ("fashion16:T-shirt/top,t-shirt/TOP", "'T-shirt/top' is chosen twice"),
        ("fashion16:3,2-4", "'Dress' is chosen twice"),
        ("fashion16:sandals", "'sandals' is none of its classes; .* Did you mean 'Sandal'?"),
        ("fashion16:10", "'10' is none of its classes; accepted are ids such as 3 and 0-9, and T-"),
        ("fashion16:7-5", "'7-5' is none of its classes"),
        ("fashion16:8-10", "'8-10' is none of its classes"),
        ("fashion16:-1", "'-1' is none of its classes"),
        ("fashion16:1,,2", "'' is none of its classes"),
        ("digits:7,0", [7, 0]),
    ],
)
def test_some_classes_of_the_embedded_data(spec, chosen):
    data = settings.Data(source=spec, image_size=16)
    if isinstance(chosen, str):
        with pytest.raises(ValueError, match=chosen) as caught:
            sources.load_source(data)
        assert str(caught.value).startswith(spec)
        return
    source = sources.load_source(data)
    whole = sources.load_source(settings.Data(source=spec.partition(":")[0], image_size=16))
    assert source.name == spec
    assert source.class_names == tuple(whole.class_names[k] for k in chosen)
    for some, every in ((source.train, whole.train), (source.test, whole.test)):
        for label, k in enumerate(chosen):
            images = some.images[np.flatnonzero(some.labels == label)]
            np.testing.assert_array_equal(images, every.images[np.flatnonzero(every.labels == k)])
        assert len(some.labels) == len(some.images) == np.isin(every.labels, chosen).sum()


def test_embedded_data_in_another_shape():
    data = settings.Data(source="digits", image_size=16, channels=3)
    source = sources.load_source(data)
    assert source.test.images.shape == (360, 16, 16, 3)
    small = sources.load_source(settings.Data()).test.images.astype(float)
    halves = source.test.images.reshape(360, 8, 2, 8, 2, 3).mean((2, 4, 5))
    assert np.abs(halves - small[..., 0]).mean() < 12


def test_embedded_data_is_small():
    folder = Path(base.__file__).parent / "assets"
    files = list(folder.glob("*.npz"))
    assert {file.stem for file in files} == {"digits", "fashion16"}
    assert sum(file.stat().st_size for file in files) < 1.5e6


@pytest.mark.parametrize("name", ["fashin16", "FOLDER:x", "digits:", "folder", "npz:", "tfds", ""])
def test_unknown_sources_are_refused(name):
    accepted = "accepted are digits[:CLASSES], fashion16[:CLASSES], folder:PATH, npz:PATH"
    with pytest.raises(ValueError, match=re.escape(accepted)):
        sources.load_source(settings.Data(source=name))


def test_near_misses_are_corrected():
    with pytest.raises(ValueError, match="Did you mean 'fashion16'?"):
        sources.load_source(settings.Data(source="fashin16"))
    with pytest.raises(ValueError, match="Did you mean 'folder'?"):
        sources.load_source(settings.Data(source="fodler:/some/where"))


def test_a_new_source_is_one_line(monkeypatch):
    def stripes(argument: str, data: settings.Data) -> base.Source:
        pixels = np.zeros((2, data.image_size, data.image_size, data.channels), np.uint8)
        split = base.make_split(pixels, [0, 1])
        return base.Source(f"stripes of {argument}", split, split, ("thin", "wide"))

    monkeypatch.setitem(sources.SOURCES, "stripes:WIDTH", stripes)
    source = sources.load_source(settings.Data(source="stripes:3"))
    assert source.name == "stripes of 3"
    with pytest.raises(ValueError, match="stripes:WIDTH"):
        sources.load_source(settings.Data(source="stripes"))


def test_hashed_places_are_uniform():
    places = np.array([base.hashed_place(f"{n}.png") for n in range(2000)])
    assert 0 <= places.min() and places.max() < 1
    counts, _ = np.histogram(places, 10, (0, 1))
    assert np.abs(counts - 200).max() < 60
    # The SHA-256 of "abc" begins with ba7816bf 8f01cfea (FIPS 180-2, appendix B.1).
    assert base.hashed_place("abc") == 0xBA7816BF8F01CFEA / 2**64
