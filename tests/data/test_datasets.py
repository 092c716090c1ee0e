from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from esrgan import images, resize
from esrgan.data import ImagePair, find_pairs, load_pair, prepare
from esrgan.data.datasets import default_data_root
from esrgan.errors import DatasetError
from tests.helpers.image_pairs import problem_texts, random_image, write_image

NAMED = {  # (dataset, split): HR folder, LR folder, suffix of LR names
    ("div2k", "train"): ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X{}", "x{}"),
    ("div2k", "val"): ("DIV2K_valid_HR", "DIV2K_valid_LR_bicubic/X{}", "x{}"),
    ("bsds500", "train"): ("BSR/BSDS500/data/images/train", None, ""),
    ("bsds500", "val"): ("BSR/BSDS500/data/images/val", None, ""),
    ("set5", "val"): ("Set5/GTmod12", "Set5/LRbicx{}", ""),
    ("set14", "val"): ("Set14/GTmod12", "Set14/LRbicx{}", ""),
}


@pytest.mark.parametrize(("name", "split"), NAMED)
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.slow
def test_named_datasets_are_found_in_their_archive_layout(tmp_path, name, split, scale):
    high, low, suffix = NAMED[name, split]
    stems = ["0801", "0002", "butterfly"]
    for stem in stems:
        write_image(tmp_path / high / f"{stem}.png")
        for factor in (2, 3, 4) if low else ():
            write_image(tmp_path / low.format(factor) / f"{stem}{suffix.format(factor)}.png")
    expected = {
        ImagePair(
            tmp_path / high / f"{stem}.png",
            tmp_path / low.format(scale) / f"{stem}{suffix.format(scale)}.png" if low and scale in (2, 4) else None,
        )
        for stem in stems
    }
    pairs = find_pairs([name], split, scale, tmp_path, degraded=scale == 1)
    assert len(pairs) == 3
    assert set(pairs) == expected


def test_scale_one_needs_lr_images_unless_patches_are_degraded(tmp_path):
    folder = str(write_image(tmp_path / "a.png").parent)
    with pytest.raises(DatasetError) as error:
        find_pairs([folder], "train", 1, tmp_path)
    (text,) = problem_texts(error)
    assert text.startswith(f"dataset {folder}: expected LR images for scale 1, got none; ")
    assert len(find_pairs([folder], "train", 1, tmp_path, degraded=True)) == 1
    write_image(tmp_path / "lr" / "a.png")
    assert len(find_pairs([(folder, str(tmp_path / "lr"))], "train", 1, tmp_path)) == 1


@pytest.mark.parametrize("name", ["div2k", "set5"])
def test_missing_lr_folder_returns_pairs_without_lr_image(tmp_path, name):
    write_image(tmp_path / NAMED[name, "val"][0] / "a.png")
    assert [pair.low for pair in find_pairs([name], "val", 4, tmp_path)] == [None]


def test_several_datasets_are_combined(tmp_path):
    a, b = write_image(tmp_path / "DIV2K_train_HR" / "0001.png"), write_image(tmp_path / "mine" / "b.png")
    c, d = write_image(tmp_path / "hr" / "c.png"), write_image(tmp_path / "lr" / "c.png")
    sources = ["div2k", str(tmp_path / "mine"), (str(tmp_path / "hr"), str(tmp_path / "lr"))]
    pairs = find_pairs(sources, "train", 4, tmp_path)
    assert pairs == [ImagePair(a, None), ImagePair(b, None), ImagePair(c, d)]


def test_folder_lists_only_files_with_an_image_suffix(tmp_path, messages):
    wanted = {write_image(tmp_path / name) for name in ("a.png", "b.jpg", "c.bmp", "d.webp", "e.tif", "f.jpeg")}
    wanted.add(write_image(tmp_path / "g.png").rename(tmp_path / "g.PNG"))
    wanted |= {write_image(tmp_path / "h.png").rename(tmp_path / f"h{suffix}") for suffix in (".jfif", ".gif", ".avif")}
    wanted |= {write_image(tmp_path / name / "a.png") for name in ("cats", "dogs", "dogs/young/brown")}
    write_image(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "exr").mkdir()
    for i in range(3):
        (tmp_path / "exr" / f"{i}.exr").touch()
    (tmp_path / "link").symlink_to(tmp_path / "cats", target_is_directory=True)
    for source in (str(tmp_path), (str(tmp_path), None)):
        pairs = find_pairs([source], "val", 4, tmp_path)
        assert {pair.high for pair in pairs} == wanted
        assert {pair.low for pair in pairs} == {None}
    assert len(messages) == 2  # every search says so
    assert set(messages) == {
        f"dataset {tmp_path}: 13 images; left out: 3 .exr files, 1 hidden file, 1 linked folder, 1 .txt file "
        f"(first: {tmp_path / '.hidden.png'})"
    }


def test_same_stem_in_two_formats_is_never_dropped_silently(tmp_path):
    both = {write_image(tmp_path / "a.jpg"), write_image(tmp_path / "a.png")}
    try:
        found = {pair.high for pair in find_pairs([str(tmp_path)], "val", 4, tmp_path)}
    except DatasetError as error:
        found = {path for path in both if path.name in str(error)}
    assert found == both


@pytest.mark.parametrize(
    ("scale", "high", "low"),
    [
        (4, "0001.png", "0001x4.png"),
        (2, "0001.png", "0001x2.png"),
        (4, "0001.png", "0001.png"),
        (4, "a.png", "a.jpg"),
        (4, "photo_x4.png", "photo_x4x4.png"),
        (4, "photox4.png", "photox4.png"),
    ],
)
def test_pairs_are_matched_by_stem(tmp_path, scale, high, low):
    high, low = write_image(tmp_path / "hr" / high), write_image(tmp_path / "lr" / low)
    pairs = find_pairs([(str(high.parent), str(low.parent))], "train", scale, tmp_path)
    assert pairs == [ImagePair(high, low)]


def test_unmatched_names_are_one_problem(tmp_path, messages):
    for name in ("a", "b", "c", "f", "g"):
        write_image(tmp_path / "hr" / f"{name}.png")
    for name in ("bx4", "d", "ex4", "bx2"):
        write_image(tmp_path / "lr" / f"{name}.png")
    with pytest.raises(DatasetError) as error:
        find_pairs([(str(tmp_path / "hr"), str(tmp_path / "lr"))], "train", 4, tmp_path)
    (text,) = problem_texts(error)
    assert text == (
        f"dataset {tmp_path / 'hr'}: expected an LR image in {tmp_path / 'lr'} for each HR image, got 4 HR images "
        "without partner (a.png, c.png, f.png, …) and 2 LR images without partner (d.png, ex4.png); add or remove "
        "images; others are paired as b.png and bx4.png"
    )
    assert "left out: 1 other-scale image (first: " in "".join(messages)


def test_every_missing_and_empty_folder_is_listed(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    write_image(tmp_path / "good" / "a.png")
    sources = ["div2k", "nowhere", ("no hr", "no lr"), "set5", str(tmp_path / "empty"), str(tmp_path / "good")]
    sources += [str(tmp_path / "file"), (str(tmp_path / "good"), "no lr 2")]
    with pytest.raises(DatasetError) as error:
        find_pairs(sources, "train", 4, tmp_path)
    texts = problem_texts(error)
    for text, name in zip(
        texts,
        ["div2k", "nowhere", "no hr", "no lr", "set5", str(tmp_path / "empty"), str(tmp_path / "file"), "no lr 2"],
        strict=True,
    ):
        assert text.startswith(f"dataset {name}: ")
    assert str(tmp_path / "DIV2K_train_HR") in texts[0]
    assert "esrgan prepare div2k" in texts[0]
    assert "ESRGAN_DATA" in texts[0]


def test_default_data_root_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("ESRGAN_DATA", "/somewhere")
    assert default_data_root() == Path("/somewhere")
    monkeypatch.setenv("ESRGAN_DATA", "")
    assert default_data_root() == Path("data")
    monkeypatch.delenv("ESRGAN_DATA")
    assert default_data_root() == Path("data")


def test_skimage_dataset_provides_disjoint_train_and_validation_images(tmp_path):
    train, val = (find_pairs(["skimage"], split, 4, tmp_path) for split in ("train", "val"))
    assert {pair.high for pair in train}.isdisjoint(pair.high for pair in val)
    for pair in (*train, *val):
        assert pair.low is None
        assert images.read_pixels(pair.high, 3).shape[0] >= 300


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(16, 24), (19, 31)])
def test_missing_lr_image_is_bicubic_of_cropped_hr_image(tmp_path, scale, channels, size):
    image = random_image(*size, channels)
    low, high = load_pair(ImagePair(write_image(tmp_path / "a.png", image), None), scale, channels)
    height, width = (side - side % scale for side in size)
    assert np.array_equal(high, image[:height, :width])
    assert np.array_equal(low, resize.bicubic(image[:height, :width], Fraction(1, scale)))
    assert low.shape == (height // scale, width // scale, channels)
    assert low.dtype == high.dtype == np.uint8


def test_existing_lr_images_are_used_unchanged(tmp_path):
    image, reduced = random_image(18, 27), random_image(4, 6, seed=1)
    pair = ImagePair(write_image(tmp_path / "hr" / "a.png", image), write_image(tmp_path / "lr" / "a.png", reduced))
    low, high = load_pair(pair, 4, 3)
    assert np.array_equal(low, reduced)
    assert np.array_equal(high, image[:16, :24])


def test_prepare_and_training_refuse_the_same_pairs(tmp_path):
    photo, grey = random_image(16, 16), random_image(16, 16, 1)
    tinted = grey.repeat(3, axis=2)
    tinted[0, 0] = (1, 2, 3)
    lows = {"same": (photo, random_image(4, 4)), "tinted": (tinted, grey[::4, ::4]), "copy": (grey, tinted[::4, ::4])}
    lows |= {"grey": (photo, grey[::4, ::4]), "size": (photo, random_image(4, 5))}
    pairs = {
        name: ImagePair(write_image(tmp_path / "hr" / f"{name}.png", high), write_image(tmp_path / f"{name}.png", low))
        for name, (high, low) in lows.items()
    }
    refused = [name for name, pair in pairs.items() if prepare.check_pairs([pair], 4)]
    assert refused == ["grey", "size"]
    for name, pair in pairs.items():
        with pytest.raises(DatasetError) if name in refused else nullcontext():
            load_pair(pair, 4, 3)
