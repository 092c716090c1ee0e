import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import namedtuple
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from esrgan import images, resize
from esrgan.cli import main
from esrgan.data import download as download_module
from esrgan.data import find_pairs, load_pair, sources, unpack
from esrgan.data.reduction import low_folder
from esrgan.data.sources import SOURCES, Archive
from esrgan.errors import DatasetError
from tests.helpers.dataset_server import serving

Usage = namedtuple("Usage", "total used free")


def picture(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(image):
    buffer = io.BytesIO()
    images.Image.fromarray(image.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def texts(error):
    result = [str(problem) for problem in error.value.problems]
    assert not any("\n" in text for text in result)
    return result


# Unpacking


def unpack_it(tmp_path, content, folder="Set", wanted=("Set/a",)):
    path = tmp_path / "archive"
    path.write_bytes(content)
    (tmp_path / "root").mkdir(exist_ok=True)
    unpack.unpack(path, tmp_path / "root", folder, wanted)
    return tree(tmp_path / "root")


FILES = {"Set/a/1.png": b"one", "Set/a/2.png": b"two", "Set/b/3.png": b"three", "Set/a/.hidden": b"", "readme": b"r"}


@pytest.mark.parametrize("pack", [zipped, tarred, lambda f: tarred(f, "w"), lambda f: tarred(f, "w:xz")])
def test_what_is_wanted_is_unpacked(tmp_path, pack):
    assert unpack_it(tmp_path, pack(FILES)) == {"Set/a/1.png": b"one", "Set/a/2.png": b"two"}
    assert names(tmp_path / "root") == ["Set"]


def test_nested_folder_joins_those_that_are_there(tmp_path):
    (tmp_path / "root/LR/X2").mkdir(parents=True)
    (tmp_path / "root/LR/X2/1.png").write_bytes(b"kept")
    unpacked = unpack_it(tmp_path, zipped({"LR/X4/1.png": b"new"}), "LR/X4", ("LR/X4",))
    assert unpacked == {"LR/X2/1.png": b"kept", "LR/X4/1.png": b"new"}


def linked_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("Set/a/1.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        *(
            pack({"Set/a/1.png": b"1", name: b"evil"})
            for name in ("../evil", "Set/a/../../../evil", "/evil", "C:/evil", "..\\evil", "\\evil", "C:evil")
            for pack in (zipped, tarred)
        ),
        linked_zip(),
        tarred({special("Set/a/1.png", tarfile.SYMTYPE, "/etc/passwd"): b""}),
        tarred({special("Set/a/1.png", tarfile.LNKTYPE, "../../evil"): b""}),
        tarred({special("Set/a", tarfile.SYMTYPE, "/elsewhere"): b"", "Set/a/1.png": b"evil"}),
        tarred({special("Set/a/1.png", tarfile.FIFOTYPE): b""}),
        tarred({special("Set/a/1.png", tarfile.CHRTYPE): b""}),
    ],
)
def test_hostile_archives_are_refused_before_anything_is_written(tmp_path, content):
    with pytest.raises(DatasetError) as error:
        unpack_it(tmp_path, content)
    (text,) = texts(error)
    assert "delete it" in text
    assert tree(tmp_path / "root") == {}
    assert names(tmp_path) == ["archive", "root"]


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_name_that_comes_twice_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("Set/a/1.png", b"1")
        archive.writestr("Set/a/1.png", b"2")
    with pytest.raises(DatasetError, match="twice"):
        unpack_it(tmp_path, buffer.getvalue())


@pytest.mark.parametrize("name", ["Set/a/1.png", "elsewhere"])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_bombs_are_refused_before_they_grow(tmp_path, pack, name):
    begin = time.perf_counter()
    with pytest.raises(DatasetError, match="at most 1,") as error:
        unpack_it(tmp_path, pack({name: bytes(50_000_000)}))
    assert "got 50,000,000 bytes" in texts(error)[0]
    assert tree(tmp_path / "root") == {}
    assert time.perf_counter() - begin < 5


def test_compressed_tar_is_not_read_beyond_what_is_too_much(tmp_path):
    with pytest.raises(DatasetError, match="in 1 files"):
        unpack_it(tmp_path, tarred({"Set/a/1.png": bytes(50_000_000), "Set/a/2.png": bytes(50_000_000)}))


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MOST_MEMBERS", 4)
    for pack in (zipped, tarred):
        with pytest.raises(DatasetError, match="in 5 files"):
            unpack_it(tmp_path, pack(FILES))


def test_zip_that_lies_about_its_sizes_is_damaged(tmp_path):
    content = bytearray(zipped({"Set/a/1.png": bytes(5_000_000)}))
    position = content.index(b"PK\1\2")
    content[position + 24 : position + 28] = (1000).to_bytes(4, "little")  # the size in the list of contents
    with pytest.raises(DatasetError, match="a whole archive"):
        unpack_it(tmp_path, bytes(content))
    assert tree(tmp_path / "root") == {}


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w"), lambda f: tarred(f, "w:bz2")])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_damaged_archives_leave_nothing(tmp_path, pack, damage):
    files = {f"Set/a/{i}.png": np.random.default_rng(i).bytes(4000) for i in range(5)}
    content = bytearray(pack(files))
    if damage == "flip":
        if content[:2] not in (b"PK", b"\x1f\x8b", b"BZ"):
            pytest.skip("a plain tar has no sums; the archive's checksum is there for that")
        content[len(content) // 2] ^= 255
    content = {"cut": content[: len(content) // 2], "flip": content, "empty": b"", "text": b"<html>" * 1000}[damage]
    with pytest.raises(DatasetError) as error:
        unpack_it(tmp_path, bytes(content))
    assert "a whole archive" in texts(error)[0]
    assert "run this again" in texts(error)[0]
    assert names(tmp_path / "root") == []


def test_archive_of_something_else_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="the folder Set in it"):
        unpack_it(tmp_path, zipped({"Other/a/1.png": b"1"}))


@pytest.mark.parametrize("where", ["before", "during"])
def test_disk_without_room_leaves_nothing(tmp_path, monkeypatch, where):
    if where == "before":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 5))
    else:
        original = Path.open

        def full(self, mode="r", *arguments, **keywords):
            if mode == "xb" and self.name == "2.png":
                raise OSError(28, "No space left on device", str(self))
            return original(self, mode, *arguments, **keywords)

        monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DatasetError, match="GB free to unpack" if where == "before" else "No space left"):
        unpack_it(tmp_path, zipped(FILES))
    assert names(tmp_path / "root") == []


def test_folder_that_came_meanwhile_is_not_overwritten(tmp_path):
    (tmp_path / "root/Set").mkdir(parents=True)
    (tmp_path / "root/Set/mine").write_bytes(b"mine")
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        unpack_it(tmp_path, zipped(FILES))
    assert tree(tmp_path / "root") == {"Set/mine": b"mine"}


@pytest.mark.usefixtures("own_signals")  # a job in the background would ignore SIGINT
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_unpacking_is_done_again(tmp_path, number):
    files = {f"Set/a/{i}.png": bytes([i]) * 1000 for i in range(20)}
    path, root = tmp_path / "archive", tmp_path / "root"
    path.write_bytes(zipped(files))
    code = (
        "import sys, time; from pathlib import Path; from esrgan.data.unpack import unpack\n"
        "def progress(written, total):\n"
        "    if written >= total / 2: print(flush=True); time.sleep(60)\n"
        "unpack(Path(sys.argv[1]), Path(sys.argv[2]), 'Set', ('Set/a',), progress)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, path, root], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    process.stdout.readline()
    process.send_signal(number)
    process.communicate()
    assert not (root / "Set").exists()
    left = names(root)
    assert left == ([".esrgan-unpack-archive"] if number == signal.SIGKILL else [])
    unpack.unpack(path, root, "Set", ("Set/a",))
    assert tree(root) == files
    assert names(root) == ["Set"]


# Published datasets

HIGH = {"tiny_HR/1.png": png(picture(17, 26, seed=1)), "tiny_HR/2.png": png(picture(16, 24, seed=2))}
LOW = {"tiny_LR/X4/1x4.png": png(picture(4, 6)), "tiny_LR/X4/2x4.png": png(picture(4, 6))}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_module, "PAUSE_S", 0.0)
    with serving() as server:
        yield server


@pytest.fixture
def offered(server, monkeypatch):
    """Have DIV2K's place taken by two images; give the function that replaces what the server has."""

    def offer(high=HIGH, low=LOW, checked=True):
        archives = []
        for name, folder, files, scale in (("H.zip", "HR", high, None), ("L.tgz", "LR_bicubic/X4", low, 4)):
            for split in ("train", "valid"):
                inside = f"DIV2K_{split}_{folder}"
                content = (zipped if name == "H.zip" else tarred)(
                    {f"{inside}/{Path(path).name}": content for path, content in files.items()}
                )
                address = f"{split}{name}"
                server.files[address] = content
                digest = f"sha256:{hashlib.sha256(content).hexdigest()}" if checked else None
                size = len(content) if checked else None
                archives.append(Archive(address, server.url(address), size, digest, "here", inside, {inside: 2}, scale))
        monkeypatch.setitem(SOURCES, "div2k", tuple(archives))

    offer()
    return offer


def run(capsys, *arguments):
    code = main(["prepare", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_dataset_is_downloaded_once_and_found(server, offered, tmp_path, capsys):
    code, out, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert (code, err) == (0, "")
    assert "checksum right" in out
    assert "2 images to train on" in out
    assert '"train_datasets": ["div2k"]' in out
    assert len(find_pairs(["div2k"], "train", 4, tmp_path)) == 2
    for pair in find_pairs(["div2k"], "val", 4, tmp_path):
        assert pair.low is not None
        load_pair(pair, 4, 3)
    assert names(tmp_path) == [f"DIV2K_{split}_{part}" for split in ("train", "valid") for part in ("HR", "LR_bicubic")]
    assert len(server.seen) == 4
    before = tree(tmp_path)
    code, out, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert (code, err, len(server.seen)) == (0, "", 4)
    assert tree(tmp_path) == before


def test_only_the_scale_asked_for_is_downloaded(server, offered, tmp_path, capsys):
    code, out, _ = run(capsys, "div2k", "--scale", 2, "--data-root", tmp_path)
    assert code == 0
    assert [path for path, *_ in server.seen] == ["trainH.zip", "validH.zip"]
    assert "made when training begins" in out


def test_sizes_are_announced_and_a_small_disk_is_refused_first(server, offered, tmp_path, capsys, monkeypatch):
    sizes = [len(content) for content in server.files.values()]
    need = sum(sizes) + max(sizes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, need - 1))
    root = tmp_path / "not" / "yet"
    code, out, err = run(capsys, "div2k", "--data-root", root)
    assert code == 1
    assert "kB free" in err
    assert "trainH.zip" in out
    assert not server.seen
    assert not root.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, need))
    assert run(capsys, "div2k", "--data-root", root)[0] == 0


def test_source_without_checksum_says_so(server, offered, tmp_path, capsys):
    offered(checked=False)
    code, out, _ = run(capsys, "div2k", "--data-root", tmp_path)
    assert code == 0
    assert "no published checksum" in out
    assert hashlib.sha256(server.files["trainH.zip"]).hexdigest() in out
    assert "size unknown" in out


def test_trouble_of_the_network_is_one_line_and_the_next_run_goes_on(server, offered, tmp_path, capsys):
    server.faults = ["", "", "cut 100", *["status 503"] * 5]
    code, out, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert code == 1
    assert "HTTP 503 Service Unavailable; next attempt in 0 s" in out
    assert err.startswith("error: http://")
    assert err.count("\n") == 1
    assert len(tree(tmp_path / "DIV2K_train_HR")) == 2
    code, _, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert (code, err) == (0, "")
    assert len(server.seen) == 10
    assert not (tmp_path / "downloads").exists()


def test_archive_that_was_put_there_by_hand_is_used(server, offered, tmp_path, capsys):
    (tmp_path / "downloads").mkdir()
    for name, content in server.files.items():
        (tmp_path / "downloads" / name).write_bytes(content)
    server.files.clear()
    assert run(capsys, "div2k", "--data-root", tmp_path)[0] == 0
    assert not server.seen


def test_folder_with_other_images_is_neither_used_nor_touched(server, offered, tmp_path, capsys):
    (tmp_path / "DIV2K_train_HR").mkdir()
    (tmp_path / "DIV2K_train_HR/mine.png").write_bytes(b"mine")
    code, _, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert code == 1
    assert "expected 2 images, got 1" in err
    assert "move" in err
    assert tree(tmp_path) == {"DIV2K_train_HR/mine.png": b"mine"}


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [
        (dict(list(HIGH.items())[:1]), LOW, "expected 2 images, got 1"),
        (HIGH, {"X4/1x4.png": png(picture(4, 6)), "X4/3x4.png": png(picture(4, 6))}, "an image of this name"),
        (HIGH, {"X4/1x4.png": png(picture(5, 6)), "X4/2x4.png": png(picture(4, 6))}, "expected 6×4 px of 3 channels"),
        (HIGH, {"X4/1x4.png": png(picture(4, 6, 1)), "X4/2x4.png": png(picture(4, 6))}, "got 6×4 px of 1 channels"),
        (HIGH | {"1.png": b"no image"}, LOW, "damaged"),
    ],
)
def test_dataset_that_is_not_as_published_is_told(offered, tmp_path, capsys, high, low, expected):
    offered({Path(path).name: content for path, content in high.items()}, low)
    code, _, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert code == 1
    assert expected in err


def test_missing_dataset_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ESRGAN_DATA", str(tmp_path))
    for name, scale, root, command in (
        ("set5", 4, tmp_path, "esrgan prepare set5 ("),
        ("div2k", 2, tmp_path, "esrgan prepare div2k --scale 2 ("),
        ("bsds500", 2, tmp_path / "other place", f"esrgan prepare bsds500 --data-root '{tmp_path}/other place' ("),
    ):
        with pytest.raises(DatasetError) as error:
            find_pairs([name], "train", scale, root)
        assert command in texts(error)[0]
    with pytest.raises(DatasetError, match="validate on div2k"):
        find_pairs(["flickr2k"], "val", 4, tmp_path)


def test_table_of_sources_is_what_the_datasets_expect(tmp_path):
    assert set(SOURCES) == {"div2k", "bsds500", "set5", "set14", "flickr2k"}
    for name, archives in SOURCES.items():
        for archive in archives:
            assert archive.url.startswith("https://")
            assert archive.recorded
            kind, _, digest = (archive.digest or "").partition(":")
            assert len(bytes.fromhex(digest)) == {"sha256": 32, "md5": 16, "": 0}[kind]
            for folder, count in archive.counts.items():
                assert Path(folder).is_relative_to(archive.folder)
                (tmp_path / folder).mkdir(parents=True)
                for i in range(count):
                    (tmp_path / folder / f"{i}.png").touch()
        for scale in (2, 3, 4):
            for split in ("train",) if name == "flickr2k" else ("train", "val"):
                pairs = find_pairs([name], split, scale, tmp_path)
                assert len(pairs) in archives[0].counts.values() or name == "div2k"
                assert all((pair.low is None) == (name == "bsds500") for pair in pairs)
    assert [a.name for a in sources.archives_for("div2k", 8)] == ["DIV2K_train_HR.zip", "DIV2K_valid_HR.zip"]


# LR images of a folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, (height, width) in enumerate([(16, 24), (19, 31), (40, 20)]):
        images.write(folder / f"{i}.png", picture(height, width, seed=i), overwrite=True)
    return folder


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("workers", [1, 2])
def test_lr_images_are_made_by_bicubic_from_the_cut_hr_images(photos, capsys, scale, workers):
    if workers == 2 and scale != 3:
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


def test_name_of_the_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert low_folder(Path("a/b/"), 4) == Path("a/b_LR_x4")
    assert low_folder(Path(), 2) == tmp_path.with_name(f"{tmp_path.name}_LR_x2")


def test_only_what_is_missing_or_old_is_made(photos, capsys):
    target = photos.with_name("photos_LR_x4")
    run(capsys, photos, "--workers", 1)
    whole = tree(target)
    inodes = {path.name: path.stat().st_ino for path in target.glob("*.png")}
    (target / "0.png").write_bytes(whole["0.png"][:50])
    images.write(photos / "1.png", picture(19, 31, seed=9), overwrite=True)
    code, out, _ = run(capsys, photos, "--workers", 1)
    assert code == 0
    assert "3 images, 2 LR images to make" in out
    assert tree(target)["0.png"] == whole["0.png"]
    assert tree(target)["1.png"] != whole["1.png"]
    assert (target / "2.png").stat().st_ino == inodes["2.png"]
    assert "0 LR images to make" in run(capsys, photos, "--workers", 1)[1]


def test_bad_images_do_not_stop_the_others(photos, capsys):
    (photos / "bad.png").write_bytes(b"no image")
    images.write(photos / "grey.png", picture(16, 16, 1), overwrite=True)
    images.write(photos / "small.png", picture(3, 16), overwrite=True)
    images.write(photos / "0.jpg", picture(16, 16), overwrite=True)
    cut = png(picture(40, 40, seed=5))
    (photos / "cut.png").write_bytes(cut[: len(cut) // 2])
    code, _, err = run(capsys, photos, "--workers", 1)
    assert code == 1
    lines = err.splitlines()
    assert len(lines) == 5
    for name in ("bad.png", "grey.png", "small.png", "0.png", "cut.png"):
        assert sum(name in line for line in lines) == 1, name
    assert {name for name in tree(photos.with_name("photos_LR_x4")) if name.endswith("png")} == {
        "0.png",
        "1.png",
        "2.png",
    }


def test_lr_image_without_hr_image_is_told(photos, capsys):
    run(capsys, photos, "--workers", 1)
    (photos / "2.png").unlink()
    code, _, err = run(capsys, photos, "--workers", 1)
    assert code == 1
    assert "photos_LR_x4/2.png" in err


def test_folder_of_the_users_is_not_written_to(photos, capsys):
    target = photos.with_name("photos_LR_x4")
    target.mkdir()
    (target / "0.png").write_bytes(b"mine")
    code, _, err = run(capsys, photos, "--workers", 1)
    assert code == 1
    assert "yours" in err
    assert tree(target) == {"0.png": b"mine"}


def test_disk_without_room_for_lr_images(photos, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 10))
    code, _, err = run(capsys, photos, "--workers", 1)
    assert code == 1
    assert "kB free" in err


def test_grey_and_transparent_folders(tmp_path, capsys):
    for channels in (1, 4):
        folder = tmp_path / str(channels)
        folder.mkdir()
        images.write(folder / "a.png", picture(17, 17, channels), overwrite=True)
        assert run(capsys, folder, "--workers", 1)[0] == 0
        assert images.measure(tmp_path / f"{channels}_LR_x4" / "a.png") == (4, 4, channels)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "expected div2k, bsds500, set5, set14, flickr2k or a folder of images"),
        (["skimage"], "nothing to prepare"),
        (["nowhere", "else"], "dataset else"),
    ],
)
def test_unknown_names_are_refused_before_any_work(server, offered, capsys, arguments, expected):
    code, out, err = run(capsys, "div2k", *arguments)
    assert code == 2
    assert expected in err
    assert not out
    assert not server.seen


@pytest.mark.parametrize("arguments", [[], ["div2k", "--scale", "5"], ["div2k", "--workers", "0"]])
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(["prepare", *arguments])
    assert end.value.code == 2


def test_empty_folder(tmp_path, capsys):
    code, _, err = run(capsys, tmp_path)
    assert code == 1
    assert "expected images in this folder" in err
    assert not low_folder(tmp_path, 4).exists()


def test_command_is_listed(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "prepare" in capsys.readouterr().out


@pytest.mark.usefixtures("own_signals")
def test_interrupted_reduction_goes_on(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(60):
        images.write(folder / f"{i}.png", picture(400, 400, seed=i), overwrite=True)
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
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C: to all processes
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted\n"
    made = len(list(target.glob("*.png")))
    assert 3 <= made < 60
    code, out, _ = run(capsys, folder, "--workers", 1)
    assert code == 0
    assert f"60 images, {60 - made} LR images to make" in out
