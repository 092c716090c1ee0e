import hashlib
import shutil
from pathlib import Path

import pytest

from esrgan import download as download_module
from esrgan.cli import main, prepare
from esrgan.config import Config
from esrgan.data import datasets, find_pairs, load_pair
from esrgan.data.archives import ARCHIVES, Archive, archives_for
from esrgan.errors import DatasetError
from esrgan.text import format_count, format_size
from tests.helpers.archives import DiskUsage, names, png, run, tarred, tree, zipped
from tests.helpers.dataset_server import run_server
from tests.helpers.image_pairs import problem_texts, random_image

HIGH = {"tiny_HR/1.png": png(random_image(17, 26, seed=1)), "tiny_HR/2.png": png(random_image(16, 24, seed=2))}


LOW = {"tiny_LR/X4/1x4.png": png(random_image(4, 6)), "tiny_LR/X4/2x4.png": png(random_image(4, 6))}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_module, "RETRY_DELAY_S", 0.0)
    with run_server() as server:
        yield server


@pytest.fixture
def offer_tiny_div2k(server, monkeypatch):
    """Replace DIV2K by two images; return a function that replaces the files on the server."""

    def offer(high=HIGH, low=LOW):
        archives = []
        for name, folder, files, scale in (("H.zip", "HR", high, None), ("L.tgz", "LR_bicubic/X4", low, 4)):
            for split in ("train", "valid"):
                inside = f"DIV2K_{split}_{folder}"
                content = (zipped if name == "H.zip" else tarred)(
                    {f"{inside}/{Path(path).name}": content for path, content in files.items()}
                )
                address = f"{split}{name}"
                server.files[address] = content
                digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
                size = len(content)
                archives.append(Archive(address, server.url(address), size, digest, "here", inside, {inside: 2}, scale))
        monkeypatch.setitem(ARCHIVES, "div2k", tuple(archives))

    offer()
    return offer


@pytest.mark.slow
def test_dataset_is_downloaded_once_and_found(server, offer_tiny_div2k, tmp_path, capsys):
    code, out, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert (code, err) == (0, "")
    assert "checksum verified" in out
    assert "2 training images (with ×4 LR images), 2 validation images (with ×4 LR images)" in out
    assert '"train_datasets": ["div2k"]' in out
    assert len(find_pairs(["div2k"], "train", 4, tmp_path)) == 2
    for pair in find_pairs(["div2k"], "val", 4, tmp_path):
        assert pair.low is not None
        load_pair(pair, 4, 3)
    assert names(tmp_path) == [f"DIV2K_{split}_{part}" for split in ("train", "valid") for part in ("HR", "LR_bicubic")]
    assert len(server.requests) == 4
    before = tree(tmp_path)
    code, out, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert (code, err, len(server.requests)) == (0, "", 4)
    assert tree(tmp_path) == before


def test_only_the_requested_scale_is_downloaded(server, offer_tiny_div2k, tmp_path, capsys):
    code, out, _ = run(capsys, "div2k", "--scale", 2, "--data-root", tmp_path)
    assert code == 0
    assert [path for path, *_ in server.requests] == ["trainH.zip", "validH.zip"]
    assert "2 training images (training makes the ×2 LR images)" in out


def test_sizes_are_printed_and_disk_space_checked_before_download(
    server, offer_tiny_div2k, tmp_path, capsys, monkeypatch
):
    sizes = [len(content) for content in server.files.values()]
    need = sum(sizes) + max(sizes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(0, 0, need - 1))
    root = tmp_path / "not" / "yet"
    code, out, err = run(capsys, "div2k", "--data-root", root)
    assert code == 1
    assert "kB free" in err
    assert "trainH.zip" in out
    assert not server.requests
    assert not root.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(0, 0, need))
    code, out, _ = run(capsys, "div2k", "--data-root", root)
    assert code == 0
    assert f"div2k: {format_size(need)} needed in {root}, {format_size(need)} free\n" in out


def test_network_failure_prints_one_line_and_next_run_resumes(server, offer_tiny_div2k, tmp_path, capsys):
    server.faults = ["", "", "cut 100", *["status 503"] * 5]
    code, out, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert code == 1
    assert "HTTP 503 Service Unavailable; next attempt in 0 s" in out
    assert err.startswith("error: http://")
    assert err.count("\n") == 1
    assert len(tree(tmp_path / "DIV2K_train_HR")) == 2
    code, _, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert (code, err) == (0, "")
    assert len(server.requests) == 10
    assert not (tmp_path / "downloads").exists()


def test_manually_downloaded_archive_is_used(server, offer_tiny_div2k, tmp_path, capsys):
    (tmp_path / "downloads").mkdir()
    for name, content in server.files.items():
        (tmp_path / "downloads" / name).write_bytes(content)
    server.files.clear()
    assert run(capsys, "div2k", "--data-root", tmp_path)[0] == 0
    assert not server.requests


def test_folder_with_unexpected_images_is_left_untouched(server, offer_tiny_div2k, tmp_path, capsys):
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
        (
            HIGH,
            {"X4/1x4.png": png(random_image(4, 6)), "X4/3x4.png": png(random_image(4, 6))},
            "1 HR image without partner (2.png) and 1 LR image without partner (3x4.png)",
        ),
        (
            HIGH,
            {"X4/1x4.png": png(random_image(5, 6)), "X4/2x4.png": png(random_image(4, 6))},
            "expected 6×4 px, 1/4 of ",
        ),
        (
            HIGH,
            {"X4/1x4.png": png(random_image(4, 6, 1)), "X4/2x4.png": png(random_image(4, 6))},
            "got a grey image; recreate it in colour",
        ),
        (HIGH | {"1.png": b"no image"}, LOW, "got a text file"),
    ],
)
def test_dataset_that_differs_from_the_published_one_is_reported(
    offer_tiny_div2k, tmp_path, capsys, high, low, expected
):
    offer_tiny_div2k({Path(path).name: content for path, content in high.items()}, low)
    code, _, err = run(capsys, "div2k", "--data-root", tmp_path)
    assert code == 1
    assert expected in err


def test_missing_dataset_error_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ESRGAN_DATA", str(tmp_path))
    for name, scale, root, command in (
        ("set5", 4, tmp_path, "esrgan prepare set5 ("),
        ("div2k", 2, tmp_path, "esrgan prepare div2k --scale 2 ("),
        ("bsds500", 2, tmp_path / "other place", f"esrgan prepare bsds500 --data-root '{tmp_path}/other place' ("),
    ):
        with pytest.raises(DatasetError) as error:
            find_pairs([name], "train", scale, root)
        assert command in problem_texts(error)[0]
    with pytest.raises(DatasetError, match="validate on div2k"):
        find_pairs(["flickr2k"], "val", 4, tmp_path)


@pytest.mark.slow
def test_archive_table_matches_the_expected_dataset_folders(tmp_path):
    assert set(ARCHIVES) == {"div2k", "bsds500", "set5", "set14", "flickr2k"}
    for name, archives in ARCHIVES.items():
        for archive in archives:
            assert archive.url.startswith("https://")
            assert archive.checksum_source
            kind, _, digest = archive.digest.partition(":")
            assert len(bytes.fromhex(digest)) == {"sha256": 32, "md5": 16}[kind]
            for folder, count in archive.image_counts.items():
                assert Path(folder).is_relative_to(archive.folder)
                (tmp_path / folder).mkdir(parents=True)
                for i in range(count):
                    (tmp_path / folder / f"{i}.png").touch()
        for scale in (2, 4):
            for split in ("train",) if name == "flickr2k" else ("train", "val"):
                pairs = find_pairs([name], split, scale, tmp_path)
                assert len(pairs) in archives[0].image_counts.values() or name == "div2k"
                assert all((pair.low is None) == (name == "bsds500") for pair in pairs)
    assert [a.name for a in archives_for("div2k", 8)] == ["DIV2K_train_HR.zip", "DIV2K_valid_HR.zip"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "expected div2k, bsds500, set5, set14, flickr2k or a folder of images"),
        (["skimage"], "got a dataset that needs no preparation"),
        (["nowhere", "else"], "dataset else"),
        (["a" * 300], "got neither; correct the name"),
    ],
)
def test_unknown_dataset_names_are_refused_before_any_work(server, offer_tiny_div2k, capsys, arguments, expected):
    code, out, err = run(capsys, "div2k", *arguments)
    assert code == 2
    assert expected in err
    assert not out
    assert not server.requests


@pytest.mark.parametrize(("number", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (1200, "1,200 images")])
def test_counts_agree_with_their_nouns(number, text):
    assert format_count(number, "image") == text


@pytest.mark.parametrize("arguments", [[], ["div2k", "--scale", "3"], ["div2k", "--workers", "0"]])
def test_invalid_arguments_exit_with_code_two(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(["prepare", *arguments])
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tiles", "tiles", "photos", "--scale", "2"], "tiles are HR images; omit it"),
        (["--preview", "own.json", "--scale", "2"], "the configuration's scale_factor"),
        (["--preview", "own.json", "photos", "--scale", "4"], "the configuration's scale_factor"),
        (["--check", "own.json", "--scale", "2"], "the configuration's scale_factor"),
        (["--preview", "photos", "--workers", "2"], "omit --workers"),
        (["div2k", "set5", "--workers", "2"], "omit --workers"),
        (["photos", "--max-blockiness", "2"], "give --tiles too, or omit them"),
    ],
)
def test_options_without_effect_are_refused(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err


def test_command_is_listed(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "prepare" in capsys.readouterr().out


def test_every_scale_of_the_tables_can_be_trained() -> None:
    scales = {scale for named in datasets._NAMED_DATASETS.values() for scale in named.low_scales}
    scales |= {archive.scale for archives in ARCHIVES.values() for archive in archives if archive.scale}
    (option,) = (action for action in prepare.make_parser()._actions if action.dest == "scale")
    assert scales < set(option.choices)
    for scale in option.choices:
        assert Config(scale_factor=scale).scale_factor == scale
