"""``esrgan prepare --check``: one line for each problem with the images of datasets."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from esrgan import images, resize
from esrgan.data.alignment import Comparison, describe_most, describe_one
from esrgan.data.datasets import list_splits
from tests.helpers.archives import run
from tests.helpers.image_pairs import random_image, write_image


def scene(seed, height=132, width=140):
    """Return a smooth random colour image of uint8, unlike that of another seed."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (5, 5, 0))
    return np.clip(128 + 50 * noise / noise.std(), 0, 255).astype(np.uint8)


def check(capsys, *arguments):
    code, out, err = run(capsys, "--workers", 1, "--check", *arguments)
    return code, out.splitlines(), err.splitlines()


@pytest.fixture
def folders(tmp_path):
    """Return folders of three training images and two validation images without problems."""
    for name, seeds in (("train", (0, 1, 2)), ("val", (3, 4))):
        for seed in seeds:
            write_image(tmp_path / name / f"{seed}.png", scene(seed))
    return tmp_path / "train", tmp_path / "val"


def write_pairs(folder, count=5):
    """Write pairs of ×4, the LR images in another folder, and return the entry of a configuration."""
    for seed in range(count):
        high = write_image(folder / f"hr/{seed}.png", scene(seed))
        low = resize.bicubic(images.read_pixels(high, 3), Fraction(1, 4))
        write_image(folder / f"lr/{seed}.png", low)
    return {"hr": str(folder / "hr"), "lr": str(folder / "lr")}


def write_config(path, train, val=(), **stage):
    stage |= {"train_datasets": train, "val_datasets": list(val), "cr_patch_size": [32, 64]}
    path.write_text(json.dumps({"pretraining": stage, "training": stage | {"cr_patch_size": [128, 128]}}))
    return path


def test_images_without_problems_are_counted(folders, capsys):
    code, out, err = check(capsys, *folders)
    assert (code, err) == (0, [])
    assert out == [f"5 images checked (3 {folders[0]}, 2 {folders[1]}); no problems"]


def test_one_set_has_no_duplicates_to_search_for(folders, capsys):
    write_image(folders[0] / "again.png", scene(0))
    code, out, _ = check(capsys, folders[0])
    assert code == 0
    assert out[0].startswith("duplicates: not searched for between training and validation images")


def test_unusable_and_small_images_are_one_line_each(folders, capsys):
    train, val = folders
    (train / "bad.jpg").write_bytes(b"no image")
    cut = (train / "0.png").read_bytes()
    (train / "cut.png").write_bytes(cut[: len(cut) // 2])
    write_image(train / "small.png", scene(7, 131, 127))
    write_image(train / "dot.png", scene(8, 3, 200))
    code, out, err = check(capsys, train, val)
    assert code == 1
    assert [line.split(": ")[1] for line in err] == [
        str(train / name) for name in ("bad.jpg", "cut.png", "dot.png", "small.png")
    ]
    assert err[3].endswith("small.png: expected at least 128×128 px, got 124×128 px; remove it or use smaller patches")
    counts = "4 problems: 2 unusable images, 2 small images"
    assert out == [f"9 images checked (7 {train}, 2 {val}); {counts}"]


def test_exact_duplicates_have_the_same_pixels(folders, capsys):
    train, val = folders
    write_image(val / "copy.bmp", scene(1))
    code, out, err = check(capsys, train, val)
    assert code == 1
    text = f"an image that is not among the {train} images, got the same image as {train / '1.png'}; remove one of them"
    assert err == [f"error: {val / 'copy.bmp'}: expected {text}"]
    assert out[0].endswith("1 problem: 1 duplicate")


def test_image_of_both_sets_is_no_duplicate_of_itself(folders, tmp_path, capsys):
    train = str(folders[0])
    code, out, err = check(capsys, write_config(tmp_path / "own.json", [train], [train]))
    assert code == 1
    text = "an image that is not among the training images, got one of them; remove it from one of the two sets"
    assert err[0] == f"error: {folders[0] / '0.png'}: expected {text}"
    assert out[0].endswith("3 problems: 3 duplicates")


def test_near_duplicates_are_smaller_or_compressed(folders, capsys):
    train, val = folders
    write_image(val / "small.png", resize.bicubic(scene(1, 264, 280), Fraction(1, 2)))
    write_image(train / "large.jpg", scene(1, 264, 280))
    code, _, err = check(capsys, train, val)
    assert code == 1
    (line,) = err
    assert f"{val / 'small.png'}: expected an image that is not among the {train} images, got nearly the same" in line
    assert str(train / "large.jpg") in line


def test_empty_images_are_not_near_duplicates(folders, capsys):
    write_image(folders[0] / "dark.png", np.full((128, 128, 3), 10, np.uint8))
    write_image(folders[1] / "light.png", np.full((128, 128, 3), 200, np.uint8))
    assert check(capsys, *folders)[0] == 0


def test_splits_of_a_named_dataset_are_compared(tmp_path, capsys):
    for name, seed in (("DIV2K_train_HR/0001", 1), ("DIV2K_valid_HR/0801", 1), ("DIV2K_valid_HR/0802", 2)):
        write_image(tmp_path / f"{name}.png", scene(seed))
    code, out, err = check(capsys, "div2k", "--data-root", tmp_path)
    assert code == 1
    assert "0801.png: expected an image that is not among the training images, got the same image as" in err[0]
    assert out[-1] == "3 images checked (1 training, 2 validation); 1 problem: 1 duplicate"
    assert list_splits("div2k") == list_splits("skimage") == ("train", "val")
    assert list_splits("set5") == list_splits("flickr2k") == list_splits("photos") == ("train",)


def test_configuration_states_sizes_pairs_and_splits(tmp_path, capsys):
    config = write_config(tmp_path / "own.json", [write_pairs(tmp_path / "pairs")], [str(tmp_path / "val")])
    write_image(tmp_path / "val/a.png", scene(9))
    assert check(capsys, config) == (0, ["6 images checked (5 training, 1 validation); no problems"], [])
    write_image(tmp_path / "val/b.png", scene(3))
    write_image(tmp_path / "val/c.png", scene(10, 16, 60))
    write_image(tmp_path / "pairs/hr/small.png", scene(11, 64, 64))
    write_image(tmp_path / "pairs/lr/small.png", scene(11, 16, 16))
    code, out, err = check(capsys, config)
    assert code == 1
    assert "small.png: expected at least 128×128 px, got 64×64 px" in err[0]  # the larger patches of both stages
    assert "b.png: expected an image that is not among the training images" in err[1]
    assert "c.png: expected at least 20×20 px, got 60×16 px" in err[2]
    assert out == ["9 images checked (6 training, 3 validation); 3 problems: 2 small images, 1 duplicate"]


@pytest.mark.parametrize(
    ("change", "text", "kind"),
    [
        (lambda low: np.roll(low, 2, axis=1), "shifted against its HR image by 0 px up and 8 px right", "misalignment"),
        (lambda low: 255 - low, "does not seem to show what its HR image shows", "misalignment"),
        (lambda low: low.repeat(2, 0).repeat(2, 1), "the LR images are those of ×2", "unusable pair"),
    ],
)
def test_single_bad_pair_is_found(tmp_path, capsys, change, text, kind):
    entry = write_pairs(tmp_path)
    low = tmp_path / "lr/3.png"
    write_image(low, change(images.read_pixels(low, 3)))
    code, out, err = check(capsys, write_config(tmp_path / "own.json", [entry]))
    assert code == 1
    assert len(err) == 1
    assert err[0].startswith(f"error: {low}: ")
    assert text in err[0]
    assert out[-1] == f"5 images checked (5 training, 0 validation); 1 problem: 1 {kind}"


def test_pairs_that_are_shifted_alike_are_one_problem(tmp_path, capsys):
    entry = write_pairs(tmp_path)
    for low in (tmp_path / "lr").iterdir():
        write_image(low, np.roll(images.read_pixels(low, 3), 1, axis=0))
    code, _, err = check(capsys, write_config(tmp_path / "own.json", [entry]))
    assert code == 1
    (line,) = err
    assert "0.png and other LR images: shifted against their HR images by 4 px down" in line


def test_a_folder_that_is_named_twice_is_refused(tmp_path, capsys):
    write_image(tmp_path / "a/1.png", random_image(200, 200))
    for again, got in ((tmp_path / "a", "it twice"), (f"{tmp_path}/./a/", f"{tmp_path / 'a'} again")):
        code, _, err = run(capsys, "--check", tmp_path / "a", again)
        assert code == 2
        assert f"expected each dataset once, got {got}; omit one of them" in err


def test_a_shift_at_the_end_of_the_search_may_be_larger():
    found = Comparison(down=12, right=-1, peak=0.9, likeness=0.8, reach=12)
    expected = "by at least 12 px down and 1 px left, in pixels of the HR images"
    assert expected in describe_one(found)
    assert expected in describe_most([found] * 3)


def test_missing_datasets_and_partners_are_problems(tmp_path, capsys):
    entry = write_pairs(tmp_path)
    (tmp_path / "lr/2.png").unlink()
    config = write_config(tmp_path / "own.json", [entry, str(tmp_path / "nothing")])
    code, out, err = check(capsys, config)
    assert code == 1
    assert len(err) == 2
    assert "1 HR image without partner (2.png)" in err[0]
    assert f"dataset {tmp_path / 'nothing'}: expected a folder of images" in err[1]
    assert out[-1].endswith("2 problems: 2 unusable datasets")


@pytest.mark.parametrize("name", ["nothing", "nothing.json", "wrong.json"])
def test_wrong_names_exit_with_code_two(tmp_path, capsys, name):
    (tmp_path / "wrong.json").write_text('{"scale": 4}')
    code, out, err = check(capsys, tmp_path / name)
    assert (code, out) == (2, [])
    assert len(err) == 1
    assert str(tmp_path / name) in err[0]


def test_check_excludes_other_actions(capsys):
    with pytest.raises(SystemExit) as end:
        run(capsys, "--check", "--preview", ".")
    assert end.value.code == 2
