"""Tests of finding images in files, folders and glob patterns."""

import os
from types import SimpleNamespace

import pytest

from esrgan import images
from esrgan.errors import ImageError


@pytest.fixture
def tree(tmp_path):
    for name in ("b.png", "a.JPG", "sub/c.webp", ".hidden.png", ".git/d.png", "notes.txt", "[x]/e.png", "sub/.f/g.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(files, root):
    return [file.relative_to(root).as_posix() for file in files]


def test_find_images_expands_folders_and_patterns(tree):
    everything = ["[x]/e.png", "a.JPG", "b.png", "sub/c.webp"]
    assert names(images.find_images([tree]), tree) == everything
    assert names(images.find_images([str(tree / "*")]), tree) == everything
    assert names(images.find_images([str(tree / "**/*.png")]), tree) == ["[x]/e.png", "b.png"]
    assert names(images.find_images([tree / "[x]"]), tree) == ["[x]/e.png"]
    assert names(images.find_images([tree / "notes.txt", tree / ".hidden.png"]), tree) == ["notes.txt", ".hidden.png"]


def test_find_images_keeps_order_without_duplicates(tree, monkeypatch):
    monkeypatch.chdir(tree)
    found = images.find_images(["sub/../b.png", "sub", tree / "b.png", "a.JPG", "./b.png"])
    assert [file.name for file in found] == ["b.png", "c.webp", "a.JPG"]
    assert images.find_images([]) == {}


def test_find_images_accepts_other_suffixes(tree):
    assert names(images.find_images([tree, tree / "*.txt"], {".txt", ".png"}), tree) == [
        "[x]/e.png",
        "b.png",
        "notes.txt",
    ]


def test_junctions_of_windows_are_not_followed(tree, monkeypatch):
    """They are folders that ``Path.is_symlink`` does not recognise, and may lead back to a parent."""
    lstat = type(tree).lstat

    def describe(path):
        tags = {"st_reparse_tag": 0xA0000003} if path.name == "sub" else {}
        return SimpleNamespace(st_mode=lstat(path).st_mode, **tags)

    monkeypatch.setattr(type(tree), "lstat", describe)
    search = images.search_images([tree])
    assert names(search.files, tree) == ["[x]/e.png", "a.JPG", "b.png"]
    assert search.skipped == {tree / "sub": "symlinked folders are not followed"}


def test_images_without_a_known_suffix_are_skipped_with_a_reason(tmp_path):
    """Browsers save such files."""
    for name, content in (("a", b"GIF89a"), ("b.jpg_large", b"\xff\xd8\xff"), ("LICENSE", b"text"), ("c.png~", b"")):
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    skipped = images.search_images([tmp_path]).skipped
    assert {path.name: reason for path, reason in skipped.items()} == {
        "a": "images without a suffix",
        "b.jpg_large": "images with the suffix .jpg_large",
    }


def test_find_images_reports_all_missing_paths(tree):
    (tree / "empty").mkdir()
    asked = ["none.png", "*.bmp", "empty"]
    with pytest.raises(ImageError) as error:
        images.find_images([tree / "b.png", *(tree / name for name in asked)])
    assert [problem.place for problem in error.value.problems] == [str(tree / name) for name in asked]
    messages = [str(problem) for problem in error.value.problems]
    assert "folder with images, got neither; " in messages[0]
    assert "suffixes" not in messages[0]
    assert "check the path; suffixes searched for: .avif .bmp .dds .dib .gif" in messages[1]
    assert messages[2].endswith(".webp")
    with pytest.raises(ImageError, match="name too long"):
        images.find_images(["x" * 300])


def test_list_files_names_what_it_skips(tree):
    (tree / "link").symlink_to(tree / "sub", target_is_directory=True)
    (tree / "sub/@eaDir/b.png").mkdir(parents=True)
    (tree / "sub/@eaDir/b.png/SYNOPHOTO_THUMB_XL.jpg").touch()
    files, skipped = images.list_files(tree)
    assert names(files, tree) == ["[x]/e.png", "a.JPG", "b.png", "notes.txt", "sub/c.webp"]
    assert {path.relative_to(tree).as_posix(): kind for path, kind in skipped.items()} == {
        ".hidden.png": "hidden file",
        ".git": "hidden folder",
        "sub/.f": "hidden folder",
        "sub/@eaDir": "system folder",
        "link": "linked folder",
    }
    assert names(images.search_images([tree]).skipped, tree) == ["link"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_unreadable_subfolder_does_not_hide_the_rest(tree):
    (tree / "sub").chmod(0)
    files, skipped = images.list_files(tree)
    (tree / "sub").chmod(0o700)
    assert len(files) == 4
    assert skipped[tree / "sub"] == "unreadable folder"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "'': expected an image file or a folder with images, got an empty text; check the path"),
        ("s3://a/b.png", "s3://a/b.png: expected an image file or a folder with images, got an address; download it"),
    ],
)
def test_empty_texts_and_addresses_stand_for_nothing(path, message, tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    search = images.search_images([path, "."])
    assert str(search.problems[0]).startswith(message)
    assert len(search.problems) == 1
