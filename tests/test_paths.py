"""Names and paths."""

import errno
import os
from pathlib import Path

import pytest

from esrgan import paths
from esrgan.errors import EsrganError
from esrgan.paths import suggest_path


def test_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for path, expected in (
        ("~/a", "/home/somebody/a"),
        ("~", "/home/somebody"),
        ("a/~", "a/~"),
        ("~$b.png", "~$b.png"),
    ):
        assert paths.expand_user(path) == Path(expected)
    monkeypatch.delenv("ESRGAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/c")
    assert paths.cache_dir() == Path("/home/somebody/c/esrgan")
    monkeypatch.setenv("ESRGAN_CACHE", "~/d")
    assert paths.cache_dir() == Path("/home/somebody/d")
    monkeypatch.setenv("ESRGAN_CACHE", "~nouser/d")
    with pytest.raises(EsrganError, match="ESRGAN_CACHE: there is no user nouser; set it to a folder"):
        paths.cache_dir()


def test_too_long_names_are_found_on_the_disk(tmp_path):
    for name, is_possible in (("x" * 255, True), ("x" * 256, False), ("ü" * 127, True), ("ü" * 128, False)):
        for folder in (tmp_path, tmp_path / "new"):
            assert (paths.find_name_problem(folder / name) is None) == is_possible


def test_characters_that_windows_does_not_allow_are_named(tmp_path, monkeypatch):
    """``Path.stat`` raises this there."""

    def refuse(*_, **__):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    for name in ("stat", "lstat"):
        monkeypatch.setattr(Path, name, refuse)
    path = tmp_path / "out?.png"
    assert paths.describe_path(path) == "nothing"
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    problem = str(paths.find_name_problem(path))
    assert problem == f'{path}: no file can have this name: Invalid argument; leave out < > : " | ? *'


def test_link_without_target_does_not_suggest_itself(tmp_path):
    (tmp_path / "photo.png").symlink_to(tmp_path / "gone.png")
    assert suggest_path(tmp_path / "photo.png", "check the path") == "check the path"
    assert suggest_path(tmp_path / "photos.png", "check the path") == f"did you mean {tmp_path / 'photo.png'}?"


def test_one_letter_is_not_equal_to_two_on_windows(monkeypatch):
    pairs = [("ΟΔΟΣ", "οδος"), ("\N{MICRO SIGN}", "Μ"), ("caf\u00e9", "CAFE\u0301"), ("Maße", "Masse")]
    assert all(paths.fold_name(one) == paths.fold_name(other) for one, other in pairs)
    monkeypatch.setattr("sys.platform", "win32")
    assert [paths.fold_name(one) == paths.fold_name(other) for one, other in pairs] == [True, True, True, False]
