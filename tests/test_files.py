"""Atomic writes, also on file systems that lack locks, hard links or flushing."""

import errno
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from esrgan import files
from esrgan.errors import EsrganError
from esrgan.files import atomic_write, remove_abandoned, write_bytes, write_text
from esrgan.locks import lock

fcntl = pytest.importorskip("fcntl")
LACKING = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]


def refuse(number):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


def write(path, content, then=lambda: None, **options):
    with atomic_write(path, **options) as file:
        file.write(content)
        then()


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("number", LACKING)
@pytest.mark.parametrize("overwrite", [True, False])
def test_files_are_written_without_locks_links_and_flushing(tmp_path, monkeypatch, number, overwrite):
    for module, name in ((fcntl, "flock"), (os, "link"), (os, "fsync")):
        monkeypatch.setattr(module, name, refuse(number if name == "flock" else errno.ENOTSUP))
    with atomic_write(tmp_path / "a", overwrite=overwrite) as file:
        file.write(b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
    with lock(tmp_path / ".lock", "busy"), lock(tmp_path / ".lock", "busy", wait=True):
        pass
    assert list_names(tmp_path) == [".lock", "a"]
    with pytest.raises(FileExistsError, match="expected a new file, got a file"):
        write(tmp_path / "a", b"2", overwrite=False)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_failed_flush_is_an_error(tmp_path, monkeypatch, number):
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", refuse(number))
    with pytest.raises(EsrganError, match="cannot be written"):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert list_names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["ü" * 127 + "x", "é" * 127, os.fsdecode(b"\xff\xfe"), "a\nb", "*[x]?", "~x", "-"])
def test_any_name_that_the_system_allows_works(tmp_path, name):
    write_text(tmp_path / "new folder" / name, name)
    assert (tmp_path / "new folder" / name).read_bytes() == os.fsencode(name)
    assert list_names(tmp_path / "new folder") == [name]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    with pytest.raises(FileExistsError):
        write(tmp_path / "a", b"mine", lambda: (tmp_path / "a").write_bytes(b"theirs"), overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert list_names(tmp_path) == ["a"]


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(EsrganError, match="expected a file to write, got a folder"):
        write_bytes(tmp_path / "a", b"")


def test_devices_are_written_to_instead_of_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(pipe, b"text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    write_bytes(tmp_path / "a", b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_failing_block_leaves_nothing(tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", b"x", fail)
    assert list_names(tmp_path) == []


def test_only_abandoned_temporary_files_are_removed(tmp_path, monkeypatch):
    (tmp_path / ".esrgan-00.tmp").touch()
    with atomic_write(tmp_path / "a"):
        remove_abandoned(tmp_path)
        assert len(list_names(tmp_path)) == 1
    assert list_names(tmp_path) == ["a"]
    # Without locks, another process may still be writing, unless the file is old.
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOSYS))
    for name in (".esrgan-01.tmp", ".esrgan-02.tmp"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".esrgan-02.tmp", (time.time() - files._ABANDONED_S - 10,) * 2)
    remove_abandoned(tmp_path)
    assert list_names(tmp_path) == [".esrgan-01.tmp", "a"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    (tmp_path / "dangling").symlink_to(tmp_path / "later")
    write_text(tmp_path / "dangling", "new")
    assert (tmp_path / "later").read_text() == "new"


def test_redirected_standard_output_is_written_in_order(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from esrgan.files import check_output_path, write_text\n"
        "path = Path(sys.argv[1]); print('before'); check_output_path(path)\n"
        "write_text(path, 'report\\n'); print('after')"
    )
    link = tmp_path / "stdout"
    link.symlink_to("/proc/self/fd/1")
    if not link.parent.joinpath("/proc/self/fd/1").exists():
        pytest.skip("needs /proc")
    with (tmp_path / "out.txt").open("wb") as out:
        subprocess.run([sys.executable, "-c", code, str(link)], stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text() == "before\nreport\nafter\n"
    assert link.is_symlink()


def test_folder_problem_is_found_without_creating_it(tmp_path):
    assert files.find_folder_problem(tmp_path / "new/deep") is None
    assert list_names(tmp_path) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/sub"):
        expected = f"{tmp_path / 'file'}: expected a folder, got a file; choose another folder"
        assert str(files.find_folder_problem(folder)) == expected
        with pytest.raises(EsrganError, match=re.escape(expected)):
            files.create_folder(folder)
        with pytest.raises(EsrganError, match=re.escape(expected)):
            files.check_output_path(folder / "out.json")


def test_a_device_in_place_of_a_folder_is_named(tmp_path):
    expected = "/dev/null: expected a folder, got a device; choose another folder"
    assert str(files.find_folder_problem(Path("/dev/null"))) == expected
    with pytest.raises(EsrganError, match=re.escape(expected)):
        files.check_output_path(Path("/dev/null/a.png"))


def test_an_existing_file_is_named_by_its_link(tmp_path):
    """atomic_write follows links, also those of folders; the message has one remedy."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    path = tmp_path / "link/a.txt"
    with pytest.raises(FileExistsError) as caught, files.atomic_write(path, overwrite=False):
        path.write_bytes(b"of another process")
    expected = f"{path}: expected a new file, got a file; choose another name, or allow overwriting"
    assert str(files.describe_write_error(path, caught.value)) == expected
    assert path.read_bytes() == b"of another process"


def test_read_only_disk_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "touch", refuse(errno.EROFS))
    assert "files cannot be created in this folder: Read-only file system" in str(files.find_folder_problem(tmp_path))


def test_folder_that_denies_writing_is_tried_once(tmp_path, monkeypatch):
    """Windows shows by nothing else that it denies access, and tempfile would try billions of names there."""
    tried = []

    def deny(path, *_, **__):
        tried.append(path)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    assert "Permission denied" in str(files.find_folder_problem(tmp_path))
    with pytest.raises(EsrganError, match="Permission denied"):
        files.check_output_path(tmp_path / "a")
    assert len(tried) == 2


def fail_to_replace(monkeypatch, count, code=32):
    """Let an error of Windows, by default a sharing violation, be the result of the first attempts to rename a file."""
    replace, attempts = os.replace, []

    def deny(source, target):
        attempts.append(target)
        if len(attempts) > count:
            return replace(source, target)
        error = PermissionError(errno.EACCES, "It is being used by another process", str(source), None, str(target))
        error.winerror = code
        raise error

    monkeypatch.setattr(os, "replace", deny)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    return attempts


def test_file_that_is_open_for_a_moment_is_replaced_then(tmp_path, monkeypatch):
    attempts = fail_to_replace(monkeypatch, 2)
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(attempts) == 3


def test_program_that_keeps_a_file_open_is_to_be_closed(tmp_path, monkeypatch):
    fail_to_replace(monkeypatch, 1000)
    with pytest.raises(EsrganError, match=r"a: cannot be written: It is being .*; close the program that has it open$"):
        write_bytes(tmp_path / "a", b"new")
    assert list_names(tmp_path) == []


def test_denied_access_may_be_an_open_file_or_a_missing_right(tmp_path, monkeypatch):
    attempts = fail_to_replace(monkeypatch, 1000, code=5)
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(EsrganError, match=r"; close the program that has it open, or change its permissions$"):
        write_bytes(tmp_path / "a", b"new")
    assert len(attempts) > 1
    (tmp_path / "folder").mkdir()  # a file in it may be open
    attempts.clear()
    with pytest.raises(PermissionError):
        files.replace_file(tmp_path / "folder", tmp_path / "other")
    assert len(attempts) > 1
    attempts.clear()
    with pytest.raises(EsrganError, match=r"; check the folder and its free disk space$"):
        write_bytes(tmp_path / "b", b"new")
    assert len(attempts) == 1


@pytest.mark.usefixtures("windows")
def test_abandoned_files_are_removed_on_windows(tmp_path):
    for name in (".esrgan-01.tmp", ".esrgan-02.tmp"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".esrgan-02.tmp", (time.time() - files._ABANDONED_S - 10,) * 2)
    remove_abandoned(tmp_path)
    assert list_names(tmp_path) == [".esrgan-01.tmp"]  # it may be about to be renamed


@pytest.mark.usefixtures("windows")
def test_path_that_is_too_long_for_windows_is_named(tmp_path):
    path = Path("/" + "x" * 240) / "a.png"
    error = FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
    expected = f"the path of the temporary file has {1 + 240 + 1 + 28} characters, and Windows allows 259"
    assert expected in str(files.describe_write_error(path, error))
