"""The preview sheet of a degradation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from esrgan import images
from esrgan.cli import main

pytestmark = pytest.mark.usefixtures("foreground_signals")


def run_preview(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["prepare", "--preview", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_preview_writes_a_sheet(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_preview(capsys, photos / "train")
    assert (code, err) == (0, "")
    sheet = images.read_pixels("degradation_preview.png", 3)
    assert f"{sheet.shape[1]}×{sheet.shape[0]} px, from 4 HR images, ×4" in out
    assert sheet.shape[0] > 4 * 40
    assert sheet.shape[1] > 8 * 44
    (tmp_path / "own.json").write_text(
        f'{{"scale_factor": 2, "seed": 1, "pretraining": {{"cr_patch_size": [16, 24], "degradation": {{}},'
        f' "train_datasets": ["{photos / "val"}"]}}}}'
    )
    assert run_preview(capsys, "own.json")[0] == 0  # uses the configuration's images and overwrites the sheet
    own = images.read_pixels("degradation_preview.png", 3)
    assert own.shape[0] < sheet.shape[0]
    assert run_preview(capsys, "own.json", photos / "train")[1].endswith("from 4 HR images, ×2\n")
    (tmp_path / "own.json").write_text(
        f'{{"training": {{"cr_patch_size": [24, 24], "photo_degradation": {{}},'
        f' "train_datasets": ["{photos / "val"}"]}}}}'
    )
    assert run_preview(capsys, "own.json")[0] == 0
    assert images.read_pixels("degradation_preview.png", 3).shape[0] < own.shape[0] + 24
    assert sorted(path.name for path in tmp_path.iterdir()) == ["degradation_preview.png", "own.json"]


def test_preview_keeps_a_file_of_the_users(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    images.write_pixels("degradation_preview.png", np.zeros((8, 8, 3), np.uint8))
    mine = Path("degradation_preview.png").read_bytes()
    code, _, err = run_preview(capsys, photos / "train")
    assert (code, Path("degradation_preview.png").read_bytes()) == (2, mine)
    what, remedy = "exists and is not an output of an earlier run", "move it, or run the command in another folder"
    assert f"degradation_preview.png: {what}; {remedy}" in err


def test_preview_errors_name_the_cause(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.json").write_text("{}")
    code, _, err = run_preview(capsys, "plain.json", photos / "train")
    assert code == 2
    assert err == (
        "error: plain.json: expected a degradation in one of its stages, got null in both; "
        'write "degradation": {} to use the one of Real-ESRGAN\n'
    )
    code, _, err = run_preview(capsys, tmp_path / "nowhere")
    assert code == 2
    assert "nowhere" in err
    Image.new("RGB", (3, 50)).save(tmp_path / "thin.png")
    code, _, err = run_preview(capsys, tmp_path)
    assert code == 2
    assert "thin.png: expected at least 4×4 px, got 3×50 px; remove it" in err
    assert not (tmp_path / "degradation_preview.png").exists()
