import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from esrgan import images, resize
from esrgan.data import find_pairs, load_pair
from esrgan.data.datasets import OUTPUT_MARKER
from esrgan.data.downscale import lr_folder
from esrgan.errors import DatasetError
from esrgan.locks import lock
from esrgan.text import format_count
from tests.helpers.archives import DiskUsage, png, run, tree
from tests.helpers.image_pairs import random_image, swap_names


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, (height, width) in enumerate([(16, 24), (19, 31), (40, 20)]):
        images.write_pixels(folder / f"{i}.png", random_image(height, width, seed=i), overwrite=True)
    return folder


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_lr_images_are_bicubic_of_cropped_hr_images(photos, capsys, scale, workers):
    if workers == 2 and scale != 4:
        pytest.skip("starting processes takes time")
    code, out, err = run(capsys, photos, "--scale", scale, "--workers", workers)
    assert (code, err) == (0, "")
    target = photos.with_name(f"photos_LR_x{scale}")
    assert f'{{"hr": "{photos}", "lr": "{target}"}}' in out
    pairs = find_pairs([(str(photos), str(target))], "train", scale, Path())
    assert len(pairs) == 3
    for pair in pairs:
        low, high = load_pair(pair, scale, 3)
        assert np.array_equal(low, resize.bicubic(high, Fraction(1, scale)))


def test_lr_folder_is_named_after_the_hr_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert lr_folder(Path("a/b/"), 4) == Path("a/b_LR_x4")
    assert lr_folder(Path(), 2) == tmp_path.with_name(f"{tmp_path.name}_LR_x2")
    monkeypatch.chdir("/")
    for folder in ("/", ".", "tmp/.."):
        with pytest.raises(DatasetError, match="root of the file system; name a folder in it"):
            lr_folder(Path(folder), 4)


def test_only_missing_or_outdated_lr_images_are_written(photos, capsys):
    target = photos.with_name("photos_LR_x4")
    run(capsys, photos, "--workers", 1)
    whole = tree(target)
    inodes = {path.name: path.stat().st_ino for path in target.glob("*.png")}
    (target / "0.png").write_bytes(whole["0.png"][:100])
    images.write_pixels(photos / "1.png", random_image(19, 31, seed=9), overwrite=True)
    code, out, _ = run(capsys, photos, "--workers", 1)
    assert code == 0
    assert "3 images, 2 LR images to make" in out
    assert tree(target)["0.png"] == whole["0.png"]
    assert tree(target)["1.png"] != whole["1.png"]
    assert (target / "2.png").stat().st_ino == inodes["2.png"]
    assert "0 LR images to make" in run(capsys, photos, "--workers", 1)[1]


@pytest.mark.parametrize("suffix", ["png", "bmp"])  # BMP files of one shape have one size
def test_lr_images_follow_photographs_that_swap_their_names(tmp_path, capsys, suffix):
    folder, target = tmp_path / "photos", tmp_path / "photos_LR_x4"
    folder.mkdir()
    for name, seed in (("a", 1), ("b", 2)):
        images.write_pixels(folder / f"{name}.{suffix}", random_image(16, 16, seed=seed) >> seed)
        os.utime(folder / f"{name}.{suffix}", ns=(10**18, 10**18))  # as files of a package have
    run(capsys, folder, "--workers", 1)
    before = {name: images.read_pixels(target / f"{name}.png", 3) for name in "ab"}
    swap_names(folder / f"a.{suffix}", folder / f"b.{suffix}")
    assert "2 LR images to make" in run(capsys, folder, "--workers", 1)[1]
    assert np.array_equal(images.read_pixels(target / "a.png", 3), before["b"])
    assert np.array_equal(images.read_pixels(target / "b.png", 3), before["a"])


def test_lr_images_are_kept_if_both_folders_are_moved(photos, tmp_path, capsys):
    run(capsys, photos, "--workers", 1)
    (tmp_path / "disk").mkdir()
    for folder in (photos, lr_folder(photos, 4)):
        folder.rename(tmp_path / "disk" / folder.name)
    assert "0 LR images to make" in run(capsys, tmp_path / "disk/photos", "--workers", 1)[1]


def test_damaged_record_is_replaced_by_new_lr_images(photos, capsys):
    run(capsys, photos, "--workers", 1)
    (lr_folder(photos, 4) / OUTPUT_MARKER).write_bytes(
        b'[[]]\n[5]\n[["0.png", 1]]\n[[[], 1, 2]]\n[["0.png", 1e999, 1]]\n[["0.png"\n\xff'
    )
    assert "3 LR images to make" in run(capsys, photos, "--workers", 1)[1]
    assert "0 LR images to make" in run(capsys, photos, "--workers", 1)[1]


def test_image_of_the_user_among_the_lr_images_is_not_replaced(photos, capsys):
    target = lr_folder(photos, 4)
    run(capsys, photos, "--workers", 1)
    images.write_pixels(target / "0.png", random_image(4, 6, seed=8), overwrite=True)
    before = tree(target)["0.png"]
    code, out, err = run(capsys, photos, "--workers", 1)
    assert code == 1
    assert err.count("\n") == 1
    assert f"{target / '0.png'}: exists and is not an output of an earlier run; move it" in err
    assert tree(target)["0.png"] == before
    assert "train_datasets" not in out


def test_file_of_the_user_that_cannot_be_read_is_not_replaced(photos, capsys):
    target = lr_folder(photos, 4)
    run(capsys, photos, "--workers", 1)
    (target / "0.png").write_bytes(b"8BPS of another program")
    assert run(capsys, photos, "--workers", 1)[0] == 1
    assert (target / "0.png").read_bytes() == b"8BPS of another program"


def test_lr_images_are_made_by_one_process_at_a_time(photos, capsys):
    target = lr_folder(photos, 4)
    run(capsys, photos, "--workers", 1)
    images.write_pixels(photos / "0.png", random_image(16, 24, seed=9), overwrite=True)
    with lock(target / OUTPUT_MARKER, "test"):
        code, _, err = run(capsys, photos, "--workers", 1)
    assert (code, err.count("\n")) == (1, 1)
    assert f"{target}: another process is making LR images; wait for it" in err


def test_bad_images_do_not_stop_the_rest(photos, capsys):
    (photos / "bad.png").write_bytes(b"no image")
    images.write_pixels(photos / "grey.png", random_image(16, 16, 1), overwrite=True)
    images.write_pixels(photos / "alpha.png", random_image(16, 16, 4), overwrite=True)
    images.write_pixels(photos / "small.png", random_image(3, 16), overwrite=True)
    images.write_pixels(photos / "0.jpg", random_image(16, 16), overwrite=True)
    cut = png(random_image(40, 40, seed=5))
    (photos / "cut.png").write_bytes(cut[: len(cut) // 2])
    code, out, err = run(capsys, photos, "--workers", 1)
    assert code == 1
    lines = err.splitlines()
    assert len(lines) == 5
    for name in ("bad.png", "alpha.png", "small.png", "0.png", "cut.png"):
        assert sum(name in line for line in lines) == 1, name
    assert "train_datasets" not in out
    assert {name for name in tree(photos.with_name("photos_LR_x4")) if name.endswith("png")} == {
        "grey.png",
        "0.png",
        "1.png",
        "2.png",
    }


def test_lr_images_of_names_in_another_case_are_not_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("esrgan.paths._is_case_insensitive", lambda folder: True)
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate(("IMG_1.png", "img_1.webp")):
        images.write_pixels(tmp_path / "photos" / name, random_image(16, 16, seed=seed), overwrite=True)
    code, _, err = run(capsys, tmp_path / "photos", "--workers", 1)
    assert code == 1
    assert "img_1.webp: expected only one image of this name, got IMG_1.png as well; rename one of them" in err
    assert {name for name in tree(tmp_path / "photos_LR_x4") if name.endswith("png")} == {"IMG_1.png"}


def test_lr_images_among_originals_are_refused(photos, capsys):
    (photos / "low").mkdir()
    images.write_pixels(photos / "low/0.png", images.read_pixels(photos / "0.png", 3)[::4, ::4])
    images.write_pixels(photos / "low/1.png", images.read_pixels(photos / "1.png", 3)[::4, ::4])
    code, _, err = run(capsys, photos)
    assert code == 1
    assert "images that seem to be LR images, such as low/0.png" in err
    assert not photos.with_name("photos_LR_x4").exists()


def test_lr_image_without_hr_image_is_reported(photos, capsys):
    run(capsys, photos, "--workers", 1)
    (photos / "2.png").unlink()
    code, _, err = run(capsys, photos, "--workers", 1)
    assert code == 1
    assert "1 LR image without partner (2.png)" in err
    assert "photos_LR_x4" in err


def test_folder_not_created_by_prepare_is_not_written_to(photos, capsys):
    target = photos.with_name("photos_LR_x4")
    target.mkdir()
    (target / "0.png").write_bytes(b"mine")
    code, _, err = run(capsys, photos, "--workers", 1)
    assert code == 1
    assert "expected an empty folder or one made by this command, got one with your own files" in err
    assert tree(target) == {"0.png": b"mine"}


def test_folder_with_only_files_of_a_file_manager_is_written_to(photos, capsys):
    target = photos.with_name("photos_LR_x4")
    target.mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (target / name).touch()
    code, _, err = run(capsys, photos, "--workers", 1)
    assert (code, err) == (0, "")


def test_insufficient_disk_space_for_lr_images_is_refused(photos, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(0, 0, 10))
    code, _, err = run(capsys, photos, "--workers", 1)
    assert code == 1
    assert "kB free" in err


def test_grey_and_rgba_folders_are_downscaled(tmp_path, capsys):
    for channels in (1, 4):
        folder = tmp_path / str(channels)
        folder.mkdir()
        images.write_pixels(folder / "a.png", random_image(17, 17, channels), overwrite=True)
        assert run(capsys, folder, "--workers", 1)[0] == 0
        assert images.read_shape(tmp_path / f"{channels}_LR_x4" / "a.png") == (4, 4, channels)


def test_subfolders_and_mixed_kinds_make_an_entry_that_training_accepts(tmp_path, capsys):
    folder = tmp_path / "photos"
    opaque = np.dstack([random_image(17, 20), np.full((17, 20), 255, np.uint8)])
    for name, image in {
        "cat/0.png": random_image(17, 20),
        "dog/0.png": random_image(16, 16, 1),
        "dog/old/1.png": opaque,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        images.write_pixels(folder / name, image)
    code, out, err = run(capsys, folder, "--workers", 1)
    assert (code, err) == (0, "")
    (dataset,) = json.loads("{" + out.partition("in a configuration: ")[2] + "}")["train_datasets"]
    pairs = find_pairs([(dataset["hr"], dataset["lr"])], "train", 4, Path())
    assert [pair.low.relative_to(dataset["lr"]).as_posix() for pair in pairs] == [
        "cat/0.png",
        "dog/0.png",
        "dog/old/1.png",
    ]
    for pair in pairs:
        low, high = load_pair(pair, 4, 3)
        assert np.array_equal(low, resize.bicubic(high, Fraction(1, 4)))


def test_folder_that_has_lr_images_needs_no_more(tmp_path, capsys):
    for name, size in (("a_HR", 16), ("a_LR4", 4)):
        images.write_pixels(tmp_path / f"{name}.png", random_image(size, size))
    code, out, err = run(capsys, tmp_path, "--workers", 1)
    assert (code, out) == (1, "")
    assert "got a folder that has their LR images too; use it in the configuration as it is" in err


def test_empty_folder_is_an_error(tmp_path, capsys):
    code, _, err = run(capsys, tmp_path)
    assert code == 1
    assert "expected images in this folder" in err
    assert not lr_folder(tmp_path, 4).exists()


@pytest.mark.usefixtures("foreground_signals")
@pytest.mark.slow
def test_interrupted_downscaling_resumes(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(60):
        images.write_pixels(folder / f"{i}.png", random_image(400, 400, seed=i), overwrite=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "esrgan", "prepare", str(folder), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    target = folder.with_name("photos_LR_x4")
    while len(list(target.glob("*.png"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # like Ctrl-C in a terminal, to all processes
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(rf"interrupted: {folder}: \d+ of 60 LR images made; the same command makes the others\n", err)
    made = len(list(target.glob("*.png")))
    assert 3 <= made < 60
    code, out, _ = run(capsys, folder, "--workers", 1)
    assert code == 0
    assert f"60 images, {format_count(60 - made, 'LR image')} to make" in out
