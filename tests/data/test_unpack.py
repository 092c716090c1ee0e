import shutil
import signal
import subprocess
import sys
import tarfile
from contextlib import suppress

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


UNSAFE_ARCHIVES = {
    f"{pack.__name__} {name}": pack({"Set/a/1.png": b"1", name: b"evil"})
    for name in ("../evil", "Set/a/../../../evil", "/evil", "Set/a/../../evil")
    for pack in (zipped, tarred)
} | {
    "symlink": tarred({special_member("Set/a/1.png", tarfile.SYMTYPE, "/etc/passwd"): b""}),
    "hard link": tarred({special_member("Set/a/1.png", tarfile.LNKTYPE, "../../evil"): b""}),
    "symlinked folder": tarred({special_member("Set/a", tarfile.SYMTYPE, "/elsewhere"): b"", "Set/a/1.png": b"evil"}),
    "device": tarred({special_member("Set/a/1.png", tarfile.CHRTYPE): b""}),
}


# The archives contain the current time, so they cannot be the ids: test processes would disagree about them.
@pytest.mark.parametrize("content", UNSAFE_ARCHIVES.values(), ids=UNSAFE_ARCHIVES.keys())
def test_nothing_is_written_outside_the_folder(tmp_path, content):
    with suppress(DatasetError):
        unpack_content(tmp_path, content)
    assert names(tmp_path) == ["archive", "root"]
    assert names(tmp_path / "root") in (["Set"], [])
    assert set(tree(tmp_path / "root").values()) <= {b"1", b"evil"}
    assert not any(path.is_symlink() for path in (tmp_path / "root").rglob("*"))


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w"), lambda f: tarred(f, "w:bz2")])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_damaged_archives_leave_nothing_behind(tmp_path, pack, damage):
    files = {f"Set/a/{i}.png": np.random.default_rng(i).bytes(4000) for i in range(5)}
    content = bytearray(pack(files))
    if damage == "flip":
        if content[:2] not in (b"PK", b"BZ"):
            pytest.skip("only the checksum of the archive reveals this")
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

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DatasetError, match="free to unpack" if where == "before" else "No space left"):
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
        "import sys, time, esrgan.progress; from pathlib import Path; from esrgan.data import unpack\n"
        "def progress(text):\n"
        "    if ' 50%' in text: print(flush=True); time.sleep(60)\n"
        "esrgan.progress.progress = progress\n"
        "unpack.unpack(Path(sys.argv[1]), Path(sys.argv[2]), 'Set', ('Set/a',))"
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
