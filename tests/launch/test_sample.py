"""Images of a run as files for other programs."""

import types

import numpy as np
import pytest
from absl import flags
from PIL import Image

import flcl
from flcl.programs import sample


def call(workdir, *words) -> None:
    values = flags.FlagValues()
    sample.define(values)
    values(["sample", f"--workdir={workdir}", *words])
    sample.main(types.SimpleNamespace(flags=values))


def test_a_folder_gets_a_file_for_each_image_in_a_folder_for_each_class(finished, tmp_path):
    out = tmp_path / "many"
    call(finished, "--per_class=2", "--classes=ant,fox", f"--out={out}/")
    expected = flcl.open_run(finished).sample(["ant", "fox"], 2).images
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    assert files == [f"{name}/00000{i}.png" for name in ("ant", "fox") for i in (0, 1)]
    read = [np.asarray(Image.open(out / name)) for name in files]
    np.testing.assert_array_equal(np.stack(read), expected.reshape(4, 8, 8))
    with pytest.raises(ValueError, match="is not empty; choose another name or add --overwrite"):
        call(finished, f"--out={out}/")
    # Fewer images replace all earlier ones of their class.
    call(finished, "--per_class=1", "--classes=fox", "--overwrite", f"--out={out}")
    assert sorted(path.name for path in (out / "fox").iterdir()) == ["000000.png"]
    assert len(list((out / "ant").iterdir())) == 2


def test_the_arrays_that_the_evaluation_of_adm_reads(finished, tmp_path):
    out = tmp_path / "samples.npz"
    call(finished, "--per_class=3", "--classes=1,4", "--format=adm", f"--out={out}")
    with np.load(out) as arrays:
        assert arrays.files == ["arr_0", "arr_1"]
        images, labels = arrays["arr_0"], arrays["arr_1"]
    assert images.shape == (6, 8, 8, 1) and images.dtype == np.uint8
    assert labels.tolist() == [1, 1, 1, 4, 4, 4]
    expected = flcl.open_run(finished).sample([1, 4], 3).images
    np.testing.assert_array_equal(images, expected.reshape(6, 8, 8, 1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out=x.png", "--format=adm"], "--out=x.png: --format=adm writes an .npz file"),
        (["--out=x/", "--format=adm"], "--out=x/: --format=adm writes an .npz file"),
        (["--out=x.npz", "--format=png"], "--format=png: accepted are flcl and adm"),
        (["--out=x.png/"], "--out=x.png/: a folder with the name of a file"),
    ],
)
def test_places_that_do_not_fit_the_format(words, message):
    with pytest.raises(ValueError, match=message):
        call("nowhere", *words)
