"""Official archives of image files in miniature: what is read from them, and what is refused."""

import io
import re
import tarfile
import zipfile

import numpy as np
import pytest

from flcl.data import base, images, sources
from flcl.data.archives import builders
from flcl.data.archives import images as image_archives


def examples(archive: image_archives.EncodedArchive, part: str) -> list[tuple[bytes, int, int]]:
    found = [tuple(example) for example in archive.parts[part]()]
    assert found == [tuple(example) for example in archive.parts[part]()]  # from the start again
    return found


@pytest.mark.parametrize("prefix", ["", "./"])
def test_imagenet_r(tmp_path, official, prefix):
    files = official.imagenet_r(tmp_path, prefix=prefix)
    archive = image_archives.read_imagenet_r(tmp_path)
    assert archive.class_names == ("goldfish", "bee", "army ant") and archive.domain_names == ()
    ids = ("n01443537", "n02206856", "n02219486")
    expected = {"train": [], "test": []}
    for name, content in files.items():
        folder, file = name.split("/")[1:]
        part = "test" if base.hashed_place(f"{folder}/{file}") < 0.2 else "train"
        expected[part].append((content, ids.index(folder), 0))
    assert expected["test"]
    for part, wanted in expected.items():
        assert examples(archive, part) == wanted


def test_a_fifth_of_imagenet_r_is_tested_on():
    names = [f"n{n // 150:08}/art_{n % 150}.jpg" for n in range(30_000)]
    share = np.mean([base.hashed_place(name) < image_archives._IMAGENET_R_TEST for name in names])
    assert abs(share - 0.2) < 0.01


def test_imagenet_r_without_all_names_has_ids(tmp_path, official):
    official.imagenet_r(tmp_path)
    path = tmp_path / "imagenet-r.tar"
    path.write_bytes(path.read_bytes().replace(b"\nn02206856 bee", b"\nx02206856 bee"))
    names = image_archives.read_imagenet_r(tmp_path).class_names
    assert names == ("n01443537", "n02206856", "n02219486")


def test_cub200(tmp_path, official):
    files = official.cub200(tmp_path)
    archive = image_archives.read_cub200(tmp_path)
    assert archive.class_names == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    for part in ("train", "test"):
        expected = [(jpeg, label - 1, 0) for jpeg, label, trained in files.values()
                    if trained == (part == "train")]  # fmt: skip
        assert examples(archive, part) == expected
    assert len(examples(archive, "train")) == 6


def test_domainnet(tmp_path, official):
    expected = official.domainnet(tmp_path)
    archive = image_archives.read_domainnet(tmp_path)
    assert archive.class_names == ("aircraft_carrier", "zebra")
    assert archive.domain_names == image_archives.DOMAINS
    for part in ("train", "test"):
        assert examples(archive, part) == expected[part]
    assert (len(expected["train"]), len(expected["test"])) == (22, 12)


@pytest.mark.parametrize("name", ["imagenet_r", "cub200", "domainnet"])
def test_cut_archives_are_noticed(tmp_path, official, name):
    getattr(official, name)(tmp_path)
    read = builders.BUILDERS[name].read
    path = tmp_path / builders.BUILDERS[name].FILES[0]
    whole = path.read_bytes()
    for share in (0.0, 0.2, 0.5, 0.7):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=rf"{path.name}: (damaged|holds no)") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_tar_that_is_cut_between_two_images(tmp_path, official):
    official.imagenet_r(tmp_path)
    path = tmp_path / "imagenet-r.tar"
    with tarfile.open(path) as archive:
        border = archive.getmembers()[-3].offset
    path.write_bytes(path.read_bytes()[:border])
    with pytest.raises(ValueError, match=r"imagenet-r.tar: damaged .*\(ends early\)"):
        image_archives.read_imagenet_r(tmp_path)


def repack(path, change) -> None:
    """Writes a tar archive anew with `change(name, content)`; None leaves a member out."""
    with tarfile.open(path) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            if (content := change(name, content)) is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def changed(end: str, edit):
    return lambda name, content: edit(content) if name.endswith(end) else content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("classes.txt", lambda _: None), "holds no CUB_200_2011/classes.txt; fetch"),
        (
            changed("Albatross/Bird_2.jpg", lambda _: None),
            r"holds no CUB_200_2011/images/002.Laysan_Albatross/Bird_2.jpg, .*\(2 such images\)",
        ),
        (changed("labels.txt", lambda text: text.replace(b" 2", b" 3")), "has class 3 of 2"),
        (changed("split.txt", lambda text: text[4:]), "damaged or not the official file"),
        (changed("images.txt", lambda text: b"1\n" + text), "damaged or not the official file"),
        (changed("split.txt", lambda text: text.replace(b" 1", b" yes")), "damaged or not the off"),
        (
            changed("classes.txt", lambda text: text.replace(b"002.Laysan", b"001.Black_footed")),
            "two classes have the same name",
        ),
    ],
)
def test_wrong_lists_of_cub200(tmp_path, official, change, message):
    official.cub200(tmp_path)
    path = tmp_path / "CUB_200_2011.tgz"
    repack(path, change)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{message}") as caught:
        image_archives.read_cub200(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tar_of_something_else(tmp_path, official):
    official.cub200(tmp_path)
    (tmp_path / "CUB_200_2011.tgz").rename(tmp_path / "imagenet-r.tar")
    with pytest.raises(ValueError, match="imagenet-r.tar: holds no imagenet-r/<class>/<image>"):
        image_archives.read_imagenet_r(tmp_path)


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("real_train.txt", lambda t: t + "real/zebra 1\n", "real_train.txt: .*line 5 is not"),
        ("real_train.txt", lambda t: t.replace(" 1", ""), "real_train.txt: .*line 3 is not"),
        ("real_test.txt", lambda t: t.replace("_000001", "_7"), "real.zip: holds no real/air.*_7."),
        ("sketch_test.txt", lambda t: t.replace(" 1", " 0"), "class 0 is 'zebra' here and 'airc"),
    ],
)
def test_wrong_lists_of_domainnet(tmp_path, official, file, edit, message):
    official.domainnet(tmp_path)
    (tmp_path / file).write_text(edit((tmp_path / file).read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        image_archives.read_domainnet(tmp_path)
    assert "\n" not in str(caught.value)


def test_two_numbers_of_one_class_of_domainnet(tmp_path, official):
    official.domainnet(tmp_path)
    for path in tmp_path.glob("*_test.txt"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(f"{line[:-2]}2\n" for line in lines if "zebra" in line))
    with pytest.raises(ValueError, match=": damaged .*two classes have the same name"):
        image_archives.read_domainnet(tmp_path)


def test_classes_of_domainnet_without_images(tmp_path, official):
    official.domainnet(tmp_path)
    for path in tmp_path.glob("*.txt"):
        path.write_text(path.read_text().replace(" 1\n", " 2\n"))
    with pytest.raises(ValueError, match="the lists name no image of class 1; fetch them again"):
        image_archives.read_domainnet(tmp_path)


# As TFDS data sets.


def ours(tmp_path, data, name, **values):
    folders = {"tfds_dir": str(tmp_path / "tfds"), "manual_dir": str(tmp_path / "manual")}
    return data(source=f"tfds:{name}", **folders, **values)


@pytest.mark.parametrize("name", ["imagenet_r", "cub200", "domainnet"])
def test_prepared_once_and_read_again(tmp_path, data, official, name):
    folder = tmp_path / "manual" / name
    getattr(official, name)(folder)
    archive = builders.BUILDERS[name].read(folder)
    expected = {part: examples(archive, part) for part in ("train", "test")}
    made = ours(tmp_path, data, name)
    first = sources.load_source(made)
    (tmp_path / "manual").rename(tmp_path / "gone")
    for source in (first, sources.load_source(made)):
        assert source.class_names == archive.class_names
        assert source.domain_names == archive.domain_names
        for part, split in (("train", source.train), ("test", source.test)):
            content, labels, domains = zip(*expected[part], strict=True)
            np.testing.assert_array_equal(split.labels, labels)
            np.testing.assert_array_equal(split.domains, domains)
            decoded = [images.decode(io.BytesIO(file), "x", made) for file in content]
            np.testing.assert_array_equal(split.images, decoded)


def test_image_files_are_stored_as_they_are(tmp_path, data, official):
    import tensorflow_datasets as tfds

    files = official.cub200(tmp_path / "manual")
    sources.load_source(ours(tmp_path, data, "cub200"))
    builder = tfds.builder_from_directory(tmp_path / "tfds" / "cub200" / "1.0.0")
    assert builder.info.features["image"].shape == (None, None, 3)
    decoders = {"image": tfds.decode.SkipDecoding()}
    stored = [bytes(e["image"]) for e in builder.as_data_source("train", decoders=decoders)]
    assert stored == [jpeg for jpeg, _, trained in files.values() if trained]


def test_damage_inside_an_image_prepares_nothing(tmp_path, data, official):
    official.domainnet(tmp_path / "manual")
    path = tmp_path / "manual" / "real.zip"
    with zipfile.ZipFile(path) as archive:
        place = archive.infolist()[2].header_offset + 200
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"real.zip: damaged .*CRC") as caught:
        sources.load_source(ours(tmp_path, data, "domainnet"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "tfds" / "domainnet" / "1.0.0").exists()


def test_missing_files_are_named(tmp_path, data, official):
    with pytest.raises(
        ValueError, match="tfds:imagenet_r: not prepared .* put imagenet-r.tar into"
    ):
        sources.load_source(ours(tmp_path, data, "imagenet_r"))
    official.domainnet(tmp_path / "manual")
    for file in ("real.zip", "sketch_test.txt"):
        (tmp_path / "manual" / file).unlink()
    with pytest.raises(ValueError, match="; put real.zip, sketch_test.txt into .*manual$"):
        sources.load_source(ours(tmp_path, data, "domainnet"))
