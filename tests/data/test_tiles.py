"""``esrgan prepare --tiles``: overlapping tiles, without those that are blocky, empty or near-duplicates."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from esrgan import images
from esrgan.data import find_pairs, quality, tile_choice, tiles
from tests.data.test_quality import code, texture
from tests.helpers.archives import DiskUsage, run, tree
from tests.helpers.image_pairs import random_image, swap_names, write_image


@pytest.fixture
def small_tiles(monkeypatch):
    """Cut tiles of 64 px with a step of 32 px."""
    for name, value in (("TILE", 64), ("STEP", 32), ("MIN_SIDE", 24)):
        monkeypatch.setattr(tile_choice, name, value)


def grey(luma):
    return np.repeat(luma[..., None].astype(np.uint8), 3, axis=2)


@pytest.fixture
def photos(tmp_path, small_tiles):
    """Return a folder with an image of six tiles and one image for each reason to drop a tile."""
    folder = tmp_path / "photos"
    write_image(folder / "a.png", random_image(100, 96, seed=1))
    write_image(folder / "cat/blocky.png", grey(code(texture(64, 64, 2), 5)))
    write_image(folder / "cat/copy.png", random_image(100, 96, seed=1)[:64, :64])
    write_image(folder / "empty.png", np.full((64, 64, 3), 90, np.uint8))
    write_image(folder / "small.png", random_image(23, 90))
    return folder


def cut(capsys, out, *arguments):
    return run(capsys, "--workers", 1, "--tiles", out, *arguments)


def names(out):
    return {name for name in tree(out) if name.endswith("png") and name != "dropped.png"}


KEPT = {f"photos/a_s00{number}.png" for number in range(1, 7)}


def test_tiles_are_480_px_with_a_step_of_240_px():
    assert tile_choice._grid((481, 1000)) == [(top, left) for top in (0, 1) for left in (0, 240, 480, 520)]
    assert tile_choice._grid((480, 480)) == tile_choice._grid((100, 300)) == [(0, 0)]
    assert (tile_choice.TILE, tile_choice.STEP, tile_choice.MIN_SIDE) == (480, 240, 128)


def test_tiles_are_parts_of_their_image(photos, tmp_path, capsys):
    code, out, err = cut(capsys, tmp_path / "tiles", photos)
    assert (code, err) == (0, "")
    assert "11 tiles of 5 images: 6 kept, 5 dropped (1 blocky, 1 near-duplicate, 1 without detail, 2 small)" in out
    assert f'use in a configuration: "train_datasets": ["{tmp_path / "tiles"}"]' in out
    assert names(tmp_path / "tiles") == KEPT
    image = images.read_pixels(photos / "a.png", 3)
    places = [(top, left) for top in (0, 32, 36) for left in (0, 32)]
    for number, (top, left) in enumerate(places, 1):
        tile = images.read_pixels(tmp_path / f"tiles/photos/a_s{number:03}.png", 3)
        assert np.array_equal(tile, image[top : top + 64, left : left + 64])


def test_dropped_tiles_are_listed_with_reason_and_value(photos, tmp_path, capsys):
    cut(capsys, tmp_path / "tiles", photos)
    with (tmp_path / "tiles/dropped.csv").open(newline="") as file:
        rows = {row["tile"]: row for row in csv.DictReader(file)}
    blocky = rows["photos/cat/blocky_s001.png"]
    luma = quality.measure_luma(images.read_pixels(photos / "cat/blocky.png", 3))
    assert (blocky["reason"], blocky["bound"], blocky["like"]) == ("blocky", "1.0", "")
    assert float(blocky["value"]) == round(quality.measure_blockiness(luma), 3) > 1
    assert blocky["image"] == str(photos / "cat/blocky.png")
    copy = rows["photos/cat/copy_s001.png"]
    assert (copy["reason"], copy["value"], copy["bound"], copy["like"]) == (
        "near-duplicate",
        "0",
        "32",
        "photos/a_s001.png",
    )
    small = rows["photos/small_s001.png"]
    place = [small[key] for key in ("left", "top", "width", "height")]
    assert (small["reason"], small["value"], place) == ("small", "23", ["0", "0", "64", "23"])
    assert rows["photos/empty_s001.png"]["reason"] == "without detail"
    assert len(rows) == 5


def test_contact_sheet_shows_a_group_for_each_reason(photos, tmp_path, capsys):
    cut(capsys, tmp_path / "tiles", photos)
    sheet = images.read_pixels(tmp_path / "tiles/dropped.png", 3)
    assert sheet.shape[1] == 4 * 4 * 128 + 8
    left, top = 8 + 2 * 4 * 128, 8 + 28 + 8
    assert np.all(sheet[top : top + 64, left : left + 64] == 90)  # the empty tile begins the third group
    copy, kept = (sheet[top : top + 64, 8 + column * 128 :][:, :64] for column in (4, 5))
    assert np.array_equal(copy, images.read_pixels(photos / "cat/copy.png", 3))
    assert np.array_equal(copy, kept)


def test_training_leaves_out_list_and_sheet(photos, tmp_path, capsys):
    out = tmp_path / "all/tiles"
    cut(capsys, out, photos)
    for folder in (out, tmp_path / "all"):
        assert {str(pair.high.relative_to(out)) for pair in find_pairs([str(folder)], "train", 4, Path())} == KEPT
    assert capsys.readouterr().out == ""
    write_image(tmp_path / "other/dropped.png", random_image(20, 20))
    assert len(find_pairs([str(tmp_path / "other")], "train", 4, Path())) == 1


def test_second_run_writes_only_what_is_missing_or_outdated(photos, tmp_path, capsys, monkeypatch):
    out = tmp_path / "tiles"
    cut(capsys, out, photos)
    whole = tree(out)
    times = {name: (out / name).stat().st_ctime_ns for name in KEPT}
    (out / "photos/a_s002.png").unlink()
    record = out / tiles.RECORD
    lines = [line for line in record.read_bytes().splitlines() if line]
    (last,) = (line for line in lines if b"small.png" in line and len(json.loads(line)) == 3)
    lines.remove(last)
    record.write_bytes(b"\n".join([*lines, last[:-9]]))  # as if this line was being written
    measured = []
    monkeypatch.setattr(
        tile_choice, "_measure", lambda source, measure=tile_choice._measure: measured.append(source) or measure(source)
    )
    code, text, err = cut(capsys, out, photos)
    assert (code, err) == (0, "")
    assert "1 tile to write" in text
    assert [source.name for source in measured] == ["photos/small"]
    assert {name: content for name, content in tree(out).items() if name != tiles.RECORD} == {
        name: content for name, content in whole.items() if name != tiles.RECORD
    }
    assert [name for name, time in times.items() if (out / name).stat().st_ctime_ns != time] == ["photos/a_s002.png"]
    assert "0 tiles to write" in cut(capsys, out, photos)[1]
    assert len(measured) == 1
    write_image(photos / "a.png", random_image(100, 96, seed=7))
    assert "7 tiles to write" in cut(capsys, out, photos)[1]
    assert np.array_equal(
        images.read_pixels(out / "photos/a_s001.png", 3), images.read_pixels(photos / "a.png", 3)[:64, :64]
    )


def test_other_bounds_write_and_delete_tiles(photos, tmp_path, capsys):
    out = tmp_path / "tiles"
    cut(capsys, out, photos, "--max-blockiness", "100")
    assert names(out) == KEPT | {"photos/cat/blocky_s001.png"}
    cut(capsys, out, photos)
    assert names(out) == KEPT
    cut(capsys, out, photos, "--min-detail", "0", "--max-blockiness", "100")
    assert names(out) == KEPT | {"photos/cat/blocky_s001.png", "photos/empty_s001.png"}


def test_no_list_of_earlier_runs_stays(photos, tmp_path, capsys):
    out = tmp_path / "tiles"
    cut(capsys, out, photos)
    shutil.rmtree(photos / "cat")
    for name in ("small", "empty"):
        (photos / f"{name}.png").unlink()
    assert "6 kept, 0 dropped\n" in cut(capsys, out, photos)[1]
    assert not (out / "dropped.png").exists()
    assert len((out / "dropped.csv").read_text().splitlines()) == 1


def test_folder_without_useful_tiles_is_not_recommended(photos, tmp_path, capsys):
    code, out, err = cut(capsys, tmp_path / "tiles", photos, "--min-detail", "1000")
    assert code == 1
    assert "tiles: no tile is kept; see dropped.csv, and give other bounds or images" in err
    assert "0 kept, 11 dropped" in out
    assert "use in a configuration" not in out


def test_folders_of_one_name_get_different_ones(photos, tmp_path, capsys):
    write_image(tmp_path / "more/photos/a.png", random_image(64, 64, seed=5))
    code, _, err = cut(capsys, tmp_path / "tiles", photos, tmp_path / "more/photos", photos / "cat")
    assert (code, err) == (0, "")
    assert names(tmp_path / "tiles") == KEPT | {"photos_2/a_s001.png"}


@pytest.mark.parametrize("ignores_case", [False, True])
def test_names_in_another_case_lose_no_tiles(tmp_path, capsys, small_tiles, monkeypatch, ignores_case):
    monkeypatch.setattr("esrgan.paths._is_case_insensitive", lambda folder: ignores_case)
    for seed, name in enumerate(("A/Photos/a.png", "b/photos/x.png", "b/photos/X.png")):
        write_image(tmp_path / name, random_image(64, 64, seed=seed))
    code, _, err = cut(capsys, tmp_path / "tiles", tmp_path / "A/Photos", tmp_path / "b/photos")
    if ignores_case:
        assert code == 1
        assert err.endswith("x.png: expected only one image of this name, got X.png as well; rename one of them\n")
        assert names(tmp_path / "tiles") == {"Photos/a_s001.png", "photos_2/X_s001.png"}
    else:
        assert (code, err) == (0, "")
        assert names(tmp_path / "tiles") == {"Photos/a_s001.png", "photos/X_s001.png", "photos/x_s001.png"}


def test_grey_and_transparent_images_stay_as_they_are(tmp_path, capsys, small_tiles):
    for channels in (1, 4):
        write_image(tmp_path / f"{channels}/a.png", random_image(64, 64, channels, seed=channels))
        code, out, _ = cut(capsys, tmp_path / f"tiles{channels}", tmp_path / str(channels))
        assert (code, '"img_channels": 4' in out) == (0, channels == 4)
        assert images.read_shape(tmp_path / f"tiles{channels}/{channels}/a_s001.png") == (64, 64, channels)


def test_transparent_images_among_others_are_left_out(photos, tmp_path, capsys):
    image = random_image(64, 64, 4, seed=7)
    write_image(photos / "glass.png", image)
    write_image(photos / "opaque.png", np.dstack([image[::-1, :, :3], np.full((64, 64), 255, np.uint8)]))
    code, _, err = cut(capsys, tmp_path / "tiles", photos)
    assert code == 1
    assert f"{photos / 'glass.png'}: expected an RGB image, got an RGB image with alpha" in err
    assert names(tmp_path / "tiles") == KEPT | {"photos/opaque_s001.png"}


def test_bad_images_do_not_stop_the_rest(photos, tmp_path, capsys):
    (photos / "bad.png").write_bytes(b"no image")
    write_image(photos / "a.jpg", random_image(64, 64))
    code, _, err = cut(capsys, tmp_path / "tiles", photos)
    assert code == 1
    assert f"error: {photos / 'bad.png'}: expected a PNG" in err
    assert f"error: {photos / 'a.png'}: expected only one image of this name, got a.jpg as well; rename one" in err
    assert names(tmp_path / "tiles") == {"photos/a_s001.png", "photos/cat/copy_s001.png"}


def test_damaged_measures_are_measured_again(photos, tmp_path, capsys):
    out = tmp_path / "tiles"
    cut(capsys, out, photos)
    record = out / tiles.RECORD
    lines = [json.loads(line) for line in record.read_text().splitlines() if line and len(json.loads(line)) == 3]
    damaged = [[1, 2, 3], [[[1]], [1], []], *([key, shape[:1], measures] for key, shape, measures in lines)]
    record.write_text("\n".join(map(json.dumps, [*lines[:1], *damaged])))
    assert cut(capsys, out, photos)[0] == 0
    assert names(out) == KEPT


def test_too_long_name_stops_no_other_image_of_a_repeated_run(photos, tmp_path, capsys):
    out = tmp_path / "tiles"
    write_image(photos / f"{'x' * 250}.png", random_image(64, 64, seed=5))
    for _ in range(2):
        code, _, err = cut(capsys, out, photos)
        assert code == 1
        assert "File name too long" in err
        assert names(out) == KEPT
        (out / "photos/a_s003.png").unlink()


def test_files_of_the_user_are_never_touched(photos, tmp_path, capsys):
    before = tree(photos)
    for out, text in ((photos, f"expected a folder outside {photos}, got one in it"), (photos / "x", "one in it")):
        code, _, err = cut(capsys, out, photos)
        assert code == 2
        assert text in err
    write_image(tmp_path / "own/a.png")
    code, _, err = cut(capsys, tmp_path / "own", photos)
    assert code == 2
    assert "expected an empty folder or one made by this command, got one with your own files" in err
    assert tree(photos) == before
    assert len(tree(tmp_path / "own")) == 1
    cut(capsys, tmp_path / "tiles", photos)
    write_image(tmp_path / "tiles/photos/mine.png")
    code, _, err = cut(capsys, tmp_path / "tiles", photos)
    assert code == 0
    assert "also has 1 image not cut from the given ones (first: " in err
    assert (tmp_path / "tiles/photos/mine.png").exists()


def test_the_users_files_of_tiles_names_are_kept(photos, tmp_path, capsys):
    out = tmp_path / "tiles"
    cut(capsys, out, photos)
    mine = {out / "photos/empty_s001.png", out / "photos/new_s001.png"}  # names of a dropped and a new tile
    for path in mine:
        write_image(path, random_image(9, 9))
    before = {path: path.read_bytes() for path in mine}
    write_image(photos / "new.png", random_image(64, 64, seed=8))
    code, _, err = cut(capsys, out, photos)
    assert code == 1
    assert "photos/new_s001.png: exists and is not an output of an earlier run; move it" in err
    assert {path: path.read_bytes() for path in mine} == before
    (out / "dropped.csv").write_text("mine")
    assert cut(capsys, out, photos)[0] == 2
    assert (out / "dropped.csv").read_text() == "mine"


def test_images_in_the_folder_of_tiles_are_refused(photos, tmp_path, capsys):
    out = tmp_path / "tiles"
    cut(capsys, out, photos)
    before = tree(out)
    code, _, err = cut(capsys, out, out / "photos")
    assert code == 2
    assert f"{out / 'photos'}: expected a folder outside {out}, got one in it; choose another folder for" in err
    assert tree(out) == before


def test_names_that_become_too_long_are_found_before_cutting(photos, tmp_path, capsys):
    (photos / "a.png").rename(photos / f"{'a' * 247}.png")
    write_image(photos / "b.png", random_image(64, 64, seed=5))
    code, _, err = cut(capsys, tmp_path / "tiles", photos)
    assert code == 1
    (line,) = (line for line in err.splitlines() if "aaa" in line)
    assert "no file can have this name of 256 bytes: File name too long; use a shorter name or folder" in line
    assert "photos/b_s001.png" in names(tmp_path / "tiles")


def test_tiles_of_another_image_are_written_again(photos, tmp_path, capsys):
    out, other = tmp_path / "tiles", tmp_path / "more/photos"
    for folder, seed in ((photos, 1), (other, 2)):
        write_image(folder / "x.png", random_image(64, 64, seed=seed))
        os.utime(folder / "x.png", (10**9, 10**9))
    cut(capsys, out, photos, other)
    cut(capsys, out, other, photos)
    for place, folder in (("photos", other), ("photos_2", photos)):
        tile = images.read_pixels(out / place / "x_s001.png", 3)
        assert np.array_equal(tile, images.read_pixels(folder / "x.png", 3))
    write_image(photos / "x.png", random_image(70, 64, seed=3))
    os.utime(photos / "x.png", (10**9, 10**9))
    cut(capsys, out, other, photos)
    tile = images.read_pixels(out / "photos_2/x_s001.png", 3)
    assert np.array_equal(tile, images.read_pixels(photos / "x.png", 3)[:64])


def test_tiles_follow_photographs_that_swap_their_names(tmp_path, capsys, small_tiles):
    out, folder = tmp_path / "tiles", tmp_path / "photos"
    paths = [folder / "a.bmp", folder / "b.bmp"]  # of one size
    for path, seed in zip(paths, (1, 2), strict=True):
        write_image(path, random_image(64, 64, seed=seed))
        os.utime(path, (10**9, 10**9))
    cut(capsys, out, folder)
    swap_names(*paths)
    cut(capsys, out, folder)
    for path in paths:
        tile = images.read_pixels(out / f"photos/{path.stem}_s001.png", 3)
        assert np.array_equal(tile, images.read_pixels(path, 3))


def test_tiles_of_folders_with_the_same_numbers_are_hr_images(tmp_path, capsys, small_tiles):
    for name, side in (("large", 64), ("small", 32)):
        for i in range(4):
            write_image(tmp_path / name / f"{i}.png", random_image(side, side, seed=side + i))
    code, out, err = cut(capsys, tmp_path / "tiles", tmp_path / "large", tmp_path / "small")
    assert (code, err) == (0, "")
    assert "use in a configuration" in out
    assert len(find_pairs([str(tmp_path / "tiles")], "train", 4, Path())) == len(names(tmp_path / "tiles"))


def test_tiles_in_a_folder_with_a_dataset_name_are_not_that_dataset(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cut(capsys, "set5", photos)
    assert (code, err) == (0, "")
    assert '"train_datasets": ["./set5"]' in out


def test_tiles_of_a_hidden_folder_are_found_by_training(photos, tmp_path, capsys):
    photos.rename(tmp_path / ".photos")
    assert cut(capsys, tmp_path / "tiles", tmp_path / ".photos")[0] == 0
    assert names(tmp_path / "tiles") == KEPT


def test_no_tiles_are_written_through_a_link(photos, tmp_path, capsys):
    out = tmp_path / "tiles"
    cut(capsys, out, photos)
    (out / "photos").rename(tmp_path / "elsewhere")
    (out / "photos").symlink_to(tmp_path / "elsewhere")
    code, _, err = cut(capsys, out, photos)
    assert code == 2
    assert f"{out / 'photos'}: expected a folder for tiles, got a link; remove it, or choose another" in err


def test_a_link_to_itself_is_reported(photos, tmp_path, capsys):
    (photos / "loop.png").symlink_to("loop.png")
    code, _, err = cut(capsys, tmp_path / "tiles", photos)
    assert code == 1
    assert "loop.png: cannot be read" in err
    assert names(tmp_path / "tiles") == KEPT


def test_folder_with_lr_images_is_refused(tmp_path, capsys):
    for name, size in (("a_HR", 16), ("a_LR4", 4)):
        write_image(tmp_path / f"photos/{name}.png", random_image(size, size))
    code, _, err = cut(capsys, tmp_path / "tiles", tmp_path / "photos")
    assert code == 2
    assert "expected HR images only, got a folder that has their LR images too" in err
    assert not (tmp_path / "tiles").exists()


def test_insufficient_disk_space_for_tiles_is_refused(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(0, 0, 10))
    code, _, err = cut(capsys, tmp_path / "tiles", photos)
    assert code == 2
    assert "kB free" in err


@pytest.mark.parametrize(
    "arguments", [["--tiles", "t", "--preview", "."], ["--tiles", "t"], ["--tiles", "t", ".", "--min-detail", "-1"]]
)
def test_wrong_usage_exits_with_code_two(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        run(capsys, *arguments)
    assert end.value.code == 2


def test_bounds_without_tiles_are_refused(photos, capsys):
    for option in ("--min-detail", "--max-blockiness"):
        code, _, err = run(capsys, "--check", photos, option, 3)
        assert code == 2
        assert "--max-blockiness and --min-detail choose tiles; give --tiles too, or omit them" in err


def test_unknown_folder_exits_with_code_two(tmp_path, capsys):
    code, _, err = cut(capsys, tmp_path / "tiles", tmp_path / "nothing")
    assert code == 2
    assert "expected div2k, bsds500, set5, set14, flickr2k, skimage or a folder of images, got neither" in err


def test_file_instead_of_a_folder_is_recognised(tmp_path, capsys):
    code, _, err = cut(capsys, tmp_path / "tiles", write_image(tmp_path / "a.png", random_image(8, 8)))
    assert code == 2
    assert "or a folder of images, got a file; name its folder" in err


@pytest.mark.usefixtures("foreground_signals")
@pytest.mark.slow
def test_interrupted_cutting_resumes(tmp_path, capsys):
    folder, out = tmp_path / "photos", tmp_path / "tiles"
    for i in range(40):
        write_image(folder / f"{i}.png", random_image(480, 480, seed=i))
    process = subprocess.Popen(
        [sys.executable, "-m", "esrgan", "prepare", "--tiles", str(out), str(folder), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list(out.glob("photos/*_s001.png"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"interrupted: tiles of \d+ of 40 images written; the same command writes the others\n", err)
    made = len(names(out))
    assert 3 <= made < 40
    code, text, _ = cut(capsys, out, folder)
    assert code == 0
    assert f"{40 - made} tile" in text
    assert len(names(out)) == 40
