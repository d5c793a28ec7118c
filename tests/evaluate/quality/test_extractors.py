"""Features of the networks in files, and what is remembered of them."""

import jax
import numpy as np
import pytest

from flcl import settings
from flcl.data.selection import everything
from flcl.devices.mesh import make_mesh
from flcl.evaluate.quality import extractors
from flcl.models import vit
from flcl.models.pretrained import load

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "flcl" / "features"


def test_a_transformer_gives_its_class_tokens_and_remembers_them(cache):
    extractor = extractors.of_file("vit:tiny", make_mesh(1))
    assert extractor.name == "vit:tiny" and len(extractor.sha256) == 64
    (features,) = extractor(everything(IMAGES))
    model = settings.ViT(weights="tiny")
    pretrained = load.load(model, 16)
    assert load.native_size(model, 224) == 16 and load.native_size(model, 13) == 12
    mean, std = load.normalization(pretrained.model.normalize)
    pixels = (np.repeat(IMAGES, 3, axis=-1) / np.float32(255) - mean) / std
    network = vit.VisionTransformer(pretrained.model, 16)
    plain = jax.jit(network.apply)({"params": pretrained.params}, pixels)
    np.testing.assert_allclose(features, plain, atol=2e-4)
    assert len(list(cache.iterdir())) == 1

    def never(_):
        raise AssertionError("computed again")

    (again,) = extractor._remembered(everything(IMAGES), never)
    np.testing.assert_array_equal(again, features)
    # Other images, another network and a damaged file are not what is remembered.
    other = extractors.Remembered("another")
    for remembered, images in ((extractor._remembered, IMAGES[:4]), (other, IMAGES)):
        with pytest.raises(AssertionError, match="computed again"):
            list(remembered(everything(images), never))
    next(cache.iterdir()).write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="computed again"):
        list(extractor._remembered(everything(IMAGES), never))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vit:nowhere.npz", "judge.features=vit:nowhere.npz: .*no such file"),
        ("inception:nowhere.pth", "judge.features=inception:nowhere.pth: .*: no such file"),
        (
            "inception:{root}/pyproject.toml",
            r"toml: accepted are .pth and .safetensors files",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_key(spec, message, root):
    extractors.check("judge")
    with pytest.raises(ValueError, match=message) as caught:
        extractors.check(spec.format(root=root))
    assert "\n" not in str(caught.value)
