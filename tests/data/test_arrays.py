"""Arrays in a .npz file, right and wrong."""

import numpy as np
import pytest

from flcl.data import arrays, images, sources


def content(size=8, channels=3, **changes) -> dict[str, np.ndarray]:
    """3 classes, 4 training and 2 test images of each; `name=None` leaves an array out."""
    shape = (size, size) if channels is None else (size, size, channels)
    random = np.random.RandomState(0)
    found = {
        "train_images": random.randint(0, 256, (12, *shape)).astype(np.uint8),
        "train_labels": np.arange(12) % 3,
        "test_images": random.randint(0, 256, (6, *shape)).astype(np.uint8),
        "test_labels": np.arange(6) % 3,
        **changes,
    }
    return {name: values for name, values in found.items() if values is not None}


@pytest.fixture
def load(tmp_path, data):
    def run(values: dict[str, np.ndarray], **keys):
        np.savez(tmp_path / "x.npz", **values)
        return sources.load_source(data(source=f"npz:{tmp_path}/x.npz", **keys))

    return run


def test_arrays_are_taken_as_they_are(load):
    values = content(class_names=np.array(["a", "b", "c"]))
    source = load(values, resize=False)
    np.testing.assert_array_equal(source.train.images, values["train_images"])
    np.testing.assert_array_equal(source.test.images, values["test_images"])
    np.testing.assert_array_equal(source.train.labels, values["train_labels"])
    assert source.class_names == ("a", "b", "c") and source.domain_names == ()
    assert not source.train.domains.any() and source.train.labels.dtype == np.int32


def test_classes_without_names_are_numbered(load):
    assert load(content()).class_names == ("0", "1", "2")


def test_domains(load):
    values = content(train_domains=np.arange(12) % 2, test_domains=np.ones(6, np.uint8))
    source = load(values)
    assert source.domain_names == ("0", "1")
    np.testing.assert_array_equal(source.train.domains, np.arange(12) % 2)
    values["domain_names"] = np.array(["photo", "sketch"])
    assert load(values).domain_names == ("photo", "sketch")


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("wanted", [1, 3])
def test_size_and_channels_are_converted(load, data, channels, wanted):
    values = content(size=12, channels=channels)
    source = load(values, channels=wanted)
    assert source.train.images.shape == (12, 8, 8, wanted)
    pixels = values["train_images"].reshape(12, 12, 12, -1)
    expected = [images.convert(image, "x", data(channels=wanted)) for image in pixels]
    np.testing.assert_array_equal(source.train.images, np.stack(expected))


def test_beyond_the_memory_limit_images_are_converted_when_asked_for(load):
    lazy = load(content(size=12), memory_gib=0.0)
    assert isinstance(lazy.train.images, images.LazyImages)
    kept = load(content(size=12))
    np.testing.assert_array_equal(lazy.train.images[np.arange(12)], kept.train.images)


def test_arrays_in_memory_need_no_file(data):
    source = arrays.from_arrays("mine", content(), data())
    assert source.name == "mine" and len(source.train.images) == 12


WRONG = {
    "another size": (content(size=9), r"train_images\[0\]: the image is 9x9 .*image_size=8"),
    "missing": (content(test_labels=None), "'test_labels' is missing; needed are train_images,"),
    "unknown": (content(class_name=np.array(["a"])), "Did you mean 'class_names'?"),
    "lengths": (content(train_labels=np.zeros(11, int)), r"train_labels has shape \[11\].*12"),
    "columns": (content(test_labels=np.zeros((6, 1), int)), r"test_labels has shape \[6, 1\]"),
    "floats": (
        content(test_images=np.zeros((6, 8, 8, 3), np.float32)),
        r"test_images is float32; uint8 with values 0 to 255 is needed.*\* 255",
    ),
    "sixteen bit": (content(train_images=np.zeros((12, 8, 8), np.uint16)), "uint16; uint8"),
    "channels first": (
        content(train_images=np.zeros((12, 3, 8, 8), np.uint8)),
        r"train_images has shape \[12, 3, 8, 8\]; \[N, H, W\]",
    ),
    "no pixels": (content(train_images=np.zeros((12, 0, 8), np.uint8)), r"\[12, 0, 8, 1\]"),
    "float labels": (content(train_labels=np.zeros(12)), "train_labels is float64; integers"),
    "text labels": (content(train_labels=np.array(["a"] * 12)), "train_labels is <U1; integers"),
    "negative": (content(train_labels=np.arange(12) % 3 - 1), "train_labels holds -1"),
    "too large": (
        content(class_names=np.array(["a", "b"])),
        "train_labels holds 2; accepted are 0 to 1",
    ),
    "names": (content(class_names=np.arange(3)), r"class_names is int64 \[3\]; one string"),
    "same name": (content(class_names=np.array(["a", "b", "a"])), "class_names holds 'a' twice"),
    "untrained": (content(train_labels=np.arange(12) % 2), "class '2' has no training images"),
    "untested": (content(test_labels=np.arange(6) % 2), "class '2' has no test images"),
    "nameless": (
        content(class_names=np.array(["a", "b", "c", "newt"])),
        "class 'newt' has no training images",
    ),
    "half": (content(train_domains=np.zeros(12, int)), "'test_domains' is missing"),
    "domains": (
        content(train_domains=np.zeros(12, int), test_domains=np.zeros(5, int)),
        r"test_domains has shape \[5\]",
    ),
    "objects": (content(class_names=np.array(["a", None])), "without object arrays"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_name_the_array(case, load):
    values, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as caught:
        load(values, resize=False)
    assert str(caught.value).startswith("npz:") and "\n" not in str(caught.value)


def test_missing_and_damaged_files(tmp_path, data):
    path = tmp_path / "x.npz"
    with pytest.raises(ValueError, match="x.npz: no such file"):
        sources.load_source(data(source=f"npz:{path}"))
    np.savez_compressed(path, **content())
    whole = path.read_bytes()
    np.save(tmp_path / "x.npy", np.zeros(3))
    for damaged in (b"", b"text", whole[:300], (tmp_path / "x.npy").read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="x.npz: not a readable .npz file"):
            sources.load_source(data(source=f"npz:{path}"))
