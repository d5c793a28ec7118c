"""Makes the embedded data sets of this folder: `python make_assets.py FOLDER_OF_FASHION_MNIST_IDX`.

Needs scikit-learn (for its digits) and the four `*-ubyte.gz` files of Fashion-MNIST.
"""

import pathlib
import sys

import numpy as np
from sklearn import datasets, model_selection

from flcl import settings
from flcl.data import images
from flcl.data.archives import numeric

_HERE = pathlib.Path(__file__).parent
_FASHION_PER_CLASS = {"train": 500, "test": 100}


def make_digits() -> dict[str, np.ndarray]:
    """scikit-learn's digits with values 0..16, stratified into 1,437 and 360."""
    digits = datasets.load_digits()
    pixels, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    rows = np.arange(len(labels))
    train, test = model_selection.train_test_split(
        rows, test_size=360, stratify=labels, random_state=0
    )
    arrays = {"class_names": np.array([str(name) for name in digits.target_names])}
    for split, chosen in (("train", np.sort(train)), ("test", np.sort(test))):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = pixels[chosen], labels[chosen]
    return arrays


def make_fashion16(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The first images of each class in both sets of Fashion-MNIST, resized to 16x16."""
    data = settings.Data(image_size=16, channels=1)
    archive = numeric.read_fashion_mnist(folder)
    arrays = {"class_names": np.array(archive.class_names)}
    for part, (pixels, labels) in archive.parts.items():
        count = _FASHION_PER_CLASS[part]
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)]))
        small = [images.convert(pixels[row], f"{part}[{row}]", data)[..., 0] for row in chosen]
        arrays[f"{part}_images"] = np.stack(small)
        arrays[f"{part}_labels"] = labels[chosen].astype(np.uint8)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(_HERE / "digits.npz", **make_digits())
    np.savez_compressed(_HERE / "fashion16.npz", **make_fashion16(pathlib.Path(sys.argv[1])))
