"""Files of classes and trunks: their content, and every file that is refused."""

import json

import numpy as np
import pytest
import safetensors.numpy

from flcl.adapters import artifact
from flcl.adapters.functions import FAMILIES
from flcl.storage import tensors

LAYERS = {"input": (2, 3), "block/conv_1": (3, 5)}
SHAPES = {name: (3, 3, *shape) for name, shape in LAYERS.items()}
P = 4
TRUNK, OTHER = "a" * 64, "b" * 64
COMMON = {"image": (8, 1), "seed": 7, "steps": 6, "sources": OTHER}
CLASS = {**COMMON, "name": "cat", "label": 2, "family": "cosine_learnable", "p": P, "trunk": TRUNK}
RUN = {"trunk": TRUNK, "family": "cosine_learnable", "p": P, "layers": LAYERS}


def factors(family="cosine_learnable", layers=LAYERS, p=P, seed=0):
    """Factors of one class; the shapes are written out and not those of the module."""
    rng, named = np.random.default_rng(seed), {}
    for name, (cin, cout) in layers.items():
        sizes = {"a": cout, "b": cin}
        sizes |= {} if family.startswith("vanilla") else {"alpha": p}
        sizes |= {"omega": p} if family == "cosine_learnable" else {}
        named[name] = {k: rng.normal(size=n).astype(np.float32) for k, n in sizes.items()}
    return named


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    kernels = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return {
        "input": {"kernel": kernels["input"]},
        "block": {"conv_1": {"kernel": kernels["block/conv_1"]}},
    }


def write(path, content):
    path.write_bytes(content)
    return path


def changed(content: bytes, about=None, arrays=None) -> bytes:
    """The file with some entries of its description and some arrays replaced; None drops one."""
    found = safetensors.numpy.load(content)
    size = int.from_bytes(content[:8], "little")
    described = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["flcl"])
    described = {k: v for k, v in {**described, **(about or {})}.items() if v is not None}
    found = {k: v for k, v in {**found, **(arrays or {})}.items() if v is not None}
    if arrays:  # a liar computes the digest of what he wrote
        described["sha256"] = tensors.digest(found)
    metadata = {"flcl": json.dumps(described)}
    return safetensors.numpy.save(found, metadata=metadata)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_is_read_bit_by_bit(family, tmp_path):
    given = factors(family)
    content = artifact.class_bytes(given, **{**CLASS, "family": family})
    read = artifact.read_class(write(tmp_path / "cat", content))
    assert read.factors.keys() == given.keys()
    for name, entry in given.items():
        assert read.factors[name].keys() == entry.keys()
        for kind, value in entry.items():
            np.testing.assert_array_equal(read.factors[name][kind], value)
    about = read.about
    assert (about.name, about.label, about.family, about.p) == ("cat", 2, family, P)
    assert (about.format, about.seed, about.steps, about.image) == (1, 7, 6, (8, 1))
    assert about.trunk == TRUNK and about.sources == OTHER
    artifact.check_fit("f", about, **{**RUN, "family": family})


def test_names_of_arrays_are_layer_and_factor_and_bytes_are_four_per_parameter():
    given = factors(layers={f"layer_{i}": (64, 64) for i in range(20)}, p=10)
    content = artifact.class_bytes(given, **CLASS)
    loaded = safetensors.numpy.load(content)
    assert sorted(loaded)[:4] == [f"layer_0/{kind}" for kind in ("a", "alpha", "b", "omega")]
    count = sum(value.size for value in loaded.values())
    assert count == 20 * (64 + 64 + 10 + 10)
    assert 4 * count < len(content) < 4 * count + 15_000  # names and the description


def test_a_trunk_and_a_merged_network(tmp_path):
    given = parameters()
    path = write(tmp_path / "t", artifact.network_bytes(given, **COMMON, model={"width": 8}))
    names = {f"{name}/kernel": shape for name, shape in SHAPES.items()}
    read = artifact.read_trunk(path, names)
    assert read.about.model == {"width": 8}
    assert (
        read.about.sha256 == artifact.trunk_digest(given) == artifact.trunk_digest(read.parameters)
    )
    np.testing.assert_array_equal(read.parameters["input"]["kernel"], given["input"]["kernel"])
    with pytest.raises(ValueError, match=r"1 missing \('input/bias'\)"):
        artifact.read_trunk(path, {**names, "input/bias": (3,)})
    with pytest.raises(ValueError, match="is the file of a trunk, that of a class is needed"):
        artifact.read_class(path)
    named = {"name": "cat", "label": 2, "family": "shift", "trunk": TRUNK, "model": {}}
    merged = write(tmp_path / "m", artifact.network_bytes(given, **COMMON, **named))
    assert artifact.read_merged(merged, names).about.name == "cat"
    # A merged network is no trunk: other classes would be modulated twice.
    with pytest.raises(ValueError, match="is the file of a merged, that of a trunk is needed"):
        artifact.read_trunk(merged, names)


def test_a_name_that_is_an_array_and_a_group(tmp_path):
    content = artifact.network_bytes(parameters(), **COMMON, model={})
    bad = changed(content, arrays={"input": np.ones(1, np.float32)})
    with pytest.raises(ValueError, match="'input' is an array and a group of arrays"):
        artifact.read_trunk(write(tmp_path / "t", bad))


ONE = np.ones(1, np.float32)
LIES = {
    "missing": ({}, {"input/omega": None}, r"1 missing \('input/omega'\)"),
    "extra": ({}, {"input/beta": ONE}, r"1 unknown \('input/beta'\)"),
    "an extra layer": ({}, {"other/a": ONE}, r"1 unknown \('other/a'\)"),
    "shape": ({}, {"input/a": ONE}, r"'input/a' is \[1\], needed \[3\]"),
    "axes": ({}, {"input/a": np.ones((3, 1), np.float32)}, r"'input/a' is \[3, 1\], needed \[3\]"),
    "NaN": ({}, {"input/a": np.float32([1, np.nan, 1])}, "'input/a' holds NaN"),
    "type": ({}, {"input/a": np.ones(3)}, "'input/a' is F64"),
    "changed": ({"sha256": OTHER}, {}, "its arrays have the SHA-256"),
    "no digest": ({"sha256": None}, {}, "sha256 is missing"),
    "digest": ({"sha256": "zz"}, {}, "sha256 is 'zz', a SHA-256 is needed"),
    "hash of the trunk": ({"trunk": "A" * 64}, {}, "trunk is 'A+', a SHA-256 is needed"),
    "newer": ({"format": 2, "news": 1}, {}, "has format 2, and this version .* up to 1"),
    "older than the first": ({"format": 0}, {}, "format is 0, 1 to 1 are known"),
    "no number": ({"format": "1"}, {}, "format is a string, an integer is needed"),
    "kind": ({"kind": "cat"}, {}, "kind is 'cat'"),
    "an unknown entry": ({"familly": "x"}, {}, "familly is not known. Did you mean 'family'?"),
    "family": ({"family": "cosin"}, {}, "family 'cosin' is not known. Did you mean 'cosine'?"),
    "another family": ({"family": "cosine"}, {}, r"2 unknown \(.*omega"),
    "p": ({"p": 5}, {}, r"'input/alpha' is \[4\], needed \[5\]"),
    "huge p": ({"p": 10**12}, {}, "p is 1000000000000, 1 to 10000 are accepted"),
    "no layers": ({"layers": {}}, {}, "it has no layers"),
    "layers": ({"layers": [1]}, {}, "layers is a list, an object is needed"),
    "a layer without b": (
        {"layers": {"input": {"a": [3]}}},
        {"input/b": None, "input/alpha": None, "input/omega": None}
        | {f"block/conv_1/{kind}": None for kind in ("a", "b", "alpha", "omega")},
        r"3 missing \('input/alpha', 'input/b', 'input/omega'\)",
    ),
    "image": ({"image": [8]}, {}, r"image is \[8\], \[side, channels\] is needed"),
    "name": ({"name": 3}, {}, "name is an integer, a string is needed"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_is_wrong_is_refused_by_name(lie, tmp_path):
    about, arrays, why = LIES[lie]
    content = changed(artifact.class_bytes(factors(), **CLASS), about, arrays)
    with pytest.raises(ValueError, match=why) as caught:
        artifact.read_class(write(tmp_path / "cat.safetensors", content))
    assert "cat.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_that_is_not_finite_is_written():
    bad = factors()
    bad["input"]["b"][0] = np.nan
    with pytest.raises(ValueError, match="'input/b' holds NaN"):
        artifact.class_bytes(bad, **CLASS)


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ({"trunk": OTHER}, f"belongs to the trunk {TRUNK}, and this run has the trunk {OTHER}"),
        ({"family": "cosine"}, "its family is cosine_learnable, and that of this run is cosine"),
        ({"p": 5}, "its p is 4, and that of this run is 5"),
        ({"layers": {"input": (2, 3)}}, "4 unknown"),
        ({"layers": {**LAYERS, "output": (5, 1)}}, "4 missing"),
        ({"layers": {**LAYERS, "input": (2, 4)}}, r"'input/a' is \[3\], needed \[4\]"),
    ],
)
def test_a_class_of_another_run(run, why, tmp_path):
    path = write(tmp_path / "cat", artifact.class_bytes(factors(), **CLASS))
    about = artifact.read_class(path).about
    with pytest.raises(ValueError, match=why):
        artifact.check_fit(path, about, **{**RUN, **run})
