"""Paths that begin with ``~``, and names that are not UTF-8, in the commands that read and write files."""

import json
import os
import sys

import pytest

from esrgan.cli import main
from tests.helpers.images import write_images
from tests.helpers.models import make_model

NAME = os.fsdecode(b"caf\xe9")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return the home folder, with a model and images whose names are not UTF-8; the test runs elsewhere."""
    if sys.platform != "linux":
        pytest.skip("other systems accept only UTF-8 names")
    home = tmp_path / "home"
    write_images(home / NAME, 1, (12, 8))
    (home / NAME / "0.png").rename(home / NAME / f"{NAME}.png")
    make_model(home / f"{NAME}.pth")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(home))
    return home


def list_below(folder):
    return {os.fsencode(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "outputs"),
    [
        (["inference", f"~/{NAME}", "-m", f"~/{NAME}.pth", "-o", "~/out"], {b"out/caf\xe9_sr.png"}),
        (["inference", f"~/{NAME}/*.png", "-m", f"~/{NAME}.pth", "-o", "~/out"], {b"out/caf\xe9_sr.png"}),
        (["export", f"~/{NAME}.pth", f"~/x{NAME}.param"], {b"xcaf\xe9.param", b"xcaf\xe9.bin"}),
        (["export", f"~/{NAME}.pth", f"~/x{NAME}.safetensors"], {b"xcaf\xe9.safetensors"}),
        (["interpolate", "--images", *[f"~/{NAME}/{NAME}.png"] * 2, "--alpha", "0.5", "~/b.png"], {b"b.png"}),
        (["info", f"~/{NAME}.pth"], set()),
        (["doctor", "--data-root", f"~/{NAME}"], set()),
    ],
)
def test_paths_are_expanded_and_names_keep_their_bytes(home, tmp_path, capsys, arguments, outputs):
    before = list_below(home)
    assert main(arguments) == 0
    assert list_below(home) - before == outputs
    assert list_below(tmp_path / "elsewhere") == set()
    assert "error" not in capsys.readouterr().err


def test_json_escapes_bytes_that_are_not_utf8(home, capsys):
    assert main(["info", "--json", f"~/{NAME}.pth"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert os.fsencode(json.loads(out)["model"]).endswith(b"caf\xe9.pth")


@pytest.mark.parametrize("command", ["inference", "bulk"])
def test_empty_output_folder_is_refused(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "a.png", "-o", ""])
    assert "argument -o/--out-dir: expected a path, got an empty text" in capsys.readouterr().err
