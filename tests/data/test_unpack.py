import io
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from esrgan.data import unpack
from esrgan.errors import DatasetError
from tests.helpers.archives import DiskUsage, names, special_member, tarred, tree, zipped
from tests.helpers.image_pairs import problem_texts


def unpack_content(tmp_path, content, folder="Set", folders=("Set/a",)):
    path = tmp_path / "archive"
    path.write_bytes(content)
    (tmp_path / "root").mkdir(exist_ok=True)
    unpack.unpack(path, tmp_path / "root", folder, folders)
    return tree(tmp_path / "root")


FILES = {"Set/a/1.png": b"one", "Set/a/2.png": b"two", "Set/b/3.png": b"three", "Set/a/.hidden": b"", "readme": b"r"}


@pytest.mark.parametrize("pack", [zipped, tarred, lambda f: tarred(f, "w"), lambda f: tarred(f, "w:xz")])
def test_only_the_requested_folders_are_unpacked(tmp_path, pack):
    assert unpack_content(tmp_path, pack(FILES)) == {"Set/a/1.png": b"one", "Set/a/2.png": b"two"}
    assert names(tmp_path / "root") == ["Set"]


def test_nested_folder_is_added_next_to_existing_ones(tmp_path):
    (tmp_path / "root/LR/X2").mkdir(parents=True)
    (tmp_path / "root/LR/X2/1.png").write_bytes(b"kept")
    unpacked = unpack_content(tmp_path, zipped({"LR/X4/1.png": b"new"}), "LR/X4", ("LR/X4",))
    assert unpacked == {"LR/X2/1.png": b"kept", "LR/X4/1.png": b"new"}


def linked_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("Set/a/1.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


UNSAFE_NAMES = ("../evil", "Set/a/../../../evil", "/evil", "C:/evil", "..\\evil", "\\evil", "C:evil")
UNSAFE_ARCHIVES = {
    f"{pack.__name__} {name}": pack({"Set/a/1.png": b"1", name: b"evil"})
    for name in UNSAFE_NAMES
    for pack in (zipped, tarred)
} | {
    "zipped symlink": linked_zip(),
    "symlink": tarred({special_member("Set/a/1.png", tarfile.SYMTYPE, "/etc/passwd"): b""}),
    "hard link": tarred({special_member("Set/a/1.png", tarfile.LNKTYPE, "../../evil"): b""}),
    "symlinked folder": tarred({special_member("Set/a", tarfile.SYMTYPE, "/elsewhere"): b"", "Set/a/1.png": b"evil"}),
    "FIFO": tarred({special_member("Set/a/1.png", tarfile.FIFOTYPE): b""}),
    "device": tarred({special_member("Set/a/1.png", tarfile.CHRTYPE): b""}),
}


# The archives contain the current time, so they cannot be the ids: test processes would disagree about them.
@pytest.mark.parametrize("content", UNSAFE_ARCHIVES.values(), ids=UNSAFE_ARCHIVES.keys())
def test_unsafe_archives_are_refused_before_anything_is_written(tmp_path, content):
    with pytest.raises(DatasetError) as error:
        unpack_content(tmp_path, content)
    (text,) = problem_texts(error)
    assert "delete it" in text
    assert tree(tmp_path / "root") == {}
    assert names(tmp_path) == ["archive", "root"]


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_duplicate_member_name_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("Set/a/1.png", b"1")
        archive.writestr("Set/a/1.png", b"2")
    with pytest.raises(DatasetError, match="twice"):
        unpack_content(tmp_path, buffer.getvalue())


@pytest.mark.parametrize("name", ["Set/a/1.png", "elsewhere"])
@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.slow
def test_archive_bombs_are_refused_before_expansion(tmp_path, pack, name):
    begin = time.perf_counter()
    with pytest.raises(DatasetError, match="at most 1,") as error:
        unpack_content(tmp_path, pack({name: bytes(50_000_000)}))
    assert "got 50,000,000 bytes" in problem_texts(error)[0]
    assert tree(tmp_path / "root") == {}
    assert time.perf_counter() - begin < 5


def test_compressed_tar_is_not_read_beyond_the_size_limit(tmp_path):
    with pytest.raises(DatasetError, match="in 1 file;"):
        unpack_content(tmp_path, tarred({"Set/a/1.png": bytes(50_000_000), "Set/a/2.png": bytes(50_000_000)}))


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "MAX_MEMBERS", 4)
    for pack in (zipped, tarred):
        with pytest.raises(DatasetError, match="in 5 files"):
            unpack_content(tmp_path, pack(FILES))


def test_zip_with_false_sizes_is_reported_as_damaged(tmp_path):
    content = bytearray(zipped({"Set/a/1.png": bytes(5_000_000)}))
    position = content.index(b"PK\1\2")
    content[position + 24 : position + 28] = (1000).to_bytes(4, "little")  # the size in the central directory
    with pytest.raises(DatasetError, match="an intact archive"):
        unpack_content(tmp_path, bytes(content))
    assert tree(tmp_path / "root") == {}


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w"), lambda f: tarred(f, "w:bz2")])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_damaged_archives_leave_nothing_behind(tmp_path, pack, damage):
    files = {f"Set/a/{i}.png": np.random.default_rng(i).bytes(4000) for i in range(5)}
    content = bytearray(pack(files))
    if damage == "flip":
        if content[:2] not in (b"PK", b"\x1f\x8b", b"BZ"):
            pytest.skip("a plain tar has no checksums; only the checksum of the archive reveals this")
        content[len(content) // 2] ^= 255
    content = {"cut": content[: len(content) // 2], "flip": content, "empty": b"", "text": b"<html>" * 1000}[damage]
    with pytest.raises(DatasetError) as error:
        unpack_content(tmp_path, bytes(content))
    assert "an intact archive" in problem_texts(error)[0]
    assert "run this again" in problem_texts(error)[0]
    assert names(tmp_path / "root") == []


def test_archive_without_the_expected_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="the folder Set in it"):
        unpack_content(tmp_path, zipped({"Other/a/1.png": b"1"}))


@pytest.mark.parametrize("where", ["before", "during"])
def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, where):
    if where == "before":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(0, 0, 5))
    else:
        original = Path.open

        def full(self, mode="r", *arguments, **keywords):
            if mode == "xb" and self.name == "2.png":
                raise OSError(28, "No space left on device", str(self))
            return original(self, mode, *arguments, **keywords)

        monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DatasetError, match="GB free to unpack" if where == "before" else "No space left"):
        unpack_content(tmp_path, zipped(FILES))
    assert names(tmp_path / "root") == []


def test_folder_created_during_unpacking_is_not_overwritten(tmp_path):
    (tmp_path / "root/Set").mkdir(parents=True)
    (tmp_path / "root/Set/mine").write_bytes(b"mine")
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        unpack_content(tmp_path, zipped(FILES))
    assert tree(tmp_path / "root") == {"Set/mine": b"mine"}


@pytest.mark.usefixtures("foreground_signals")  # background jobs ignore SIGINT
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.slow
def test_killed_unpacking_starts_again(tmp_path, number):
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
