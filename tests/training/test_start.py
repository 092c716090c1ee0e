"""Starting a run from a model, a checkpoint, weights of another project, or no file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from esrgan.errors import WeightsError
from esrgan.interpolation import blend
from esrgan.training.start import start_fresh, start_from_file
from esrgan.weights import load_file, load_generator, save_file
from tests.helpers.runs import find_differences, load_run_files, read_records, run

pytestmark = pytest.mark.usefixtures("foreground_signals")

Make = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def start_files(reference_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return one file of each kind that -l accepts."""
    folder = tmp_path_factory.mktemp("given")
    names = {
        "PSNR model": "PSNR_x4",
        "GAN model": "ESRGAN_x4",
        "PSNR checkpoint": "PSNR_x4_checkpoint",
        "GAN checkpoint": "ESRGAN_x4_checkpoint",
    }
    files = {kind: next(reference_run.glob(f"*_RRDB_{name}.pth")) for kind, name in names.items()}
    state = load_file(files["GAN model"])["params"]
    save_file(folder / "bare.pth", state)
    save_file(folder / "basicsr.pth", {"params_ema": state})
    save_file(
        folder / "blend.pth", blend(*(load_generator(files[k]) for k in ("PSNR model", "GAN model")), 0.5).to_dict()
    )
    return files | {"foreign": folder / "bare.pth", "BasicSR": folder / "basicsr.pth", "blend": folder / "blend.pth"}


GENERATOR = r"RRDBNet ×4 8/4/1"
BOTH, FIRST, SECOND = ("pretraining", "training"), ("pretraining",), ("training",)
RESUMES = "at step 6; resuming from there"


@pytest.mark.parametrize(
    ("kind", "stage", "stages", "description"),
    [
        ("PSNR model", "all", SECOND, f"{GENERATOR}, PSNR stage; the GAN stage starts from it"),
        ("PSNR model", "training", SECOND, f"{GENERATOR}, PSNR stage; the GAN stage starts from it"),
        ("PSNR model", "pretraining", FIRST, f"{GENERATOR}, PSNR stage; the PSNR stage starts from it"),
        ("GAN model", "training", SECOND, f"{GENERATOR}, GAN stage; the GAN stage fine-tunes it"),
        ("GAN model", "pretraining", FIRST, f"{GENERATOR}, GAN stage; the PSNR stage starts from it"),
        ("blend", "training", SECOND, f"{GENERATOR}, interpolated, α = 0.5; the GAN stage fine-tunes it"),
        ("foreign", "all", SECOND, f"{GENERATOR}, BasicSR names, of unknown training; the GAN stage starts from it"),
        (
            "foreign",
            "training",
            SECOND,
            f"{GENERATOR}, BasicSR names, of unknown training; the GAN stage starts from it",
        ),
        (
            "foreign",
            "pretraining",
            FIRST,
            f"{GENERATOR}, BasicSR names, of unknown training; the PSNR stage starts from it",
        ),
        ("BasicSR", "all", SECOND, f"{GENERATOR}, BasicSR names, of unknown training; the GAN stage starts from it"),
        ("PSNR checkpoint", "all", BOTH, f"checkpoint of pretraining {RESUMES}"),
        ("PSNR checkpoint", "pretraining", FIRST, f"checkpoint of pretraining {RESUMES}"),
        (
            "PSNR checkpoint",
            "training",
            SECOND,
            "checkpoint of pretraining at step 6; the GAN stage starts from its averaged generator",
        ),
        ("GAN checkpoint", "all", SECOND, f"checkpoint of training {RESUMES}"),
        ("GAN checkpoint", "training", SECOND, f"checkpoint of training {RESUMES}"),
    ],
)
@pytest.mark.slow
def test_the_starting_point_describes_its_file(
    start_files: dict[str, Path], kind: str, stage: str, stages: tuple[str, ...], description: str
) -> None:
    path, content = start_files[kind], load_file(start_files[kind])
    start = start_from_file(path, stage)
    assert start.stages == stages
    assert start.description == f"{path}: {description}"
    assert "\n" not in start.description
    if description.endswith(RESUMES):
        assert start.resume["step"] == 6
        assert not find_differences(start.generator, content["params"])
        assert not find_differences(start.resume["params_ema"], content["params_ema"])
    else:
        assert start.resume is None
        state = content.get("params_ema", content.get("params", content))
        assert not find_differences(start.generator, state)


@pytest.mark.parametrize(
    ("kind", "stage", "message"),
    [
        ("GAN model", "all", "this model has finished GAN training; add --stage training to fine-tune it"),
        ("GAN checkpoint", "pretraining", "a checkpoint of training cannot resume pretraining; use --stage training"),
    ],
)
def test_a_file_unsuitable_for_the_stage_is_an_error(
    start_files: dict[str, Path], tiny_config: Make, tmp_path: Path, kind: str, stage: str, message: str
) -> None:
    with pytest.raises(WeightsError, match=re.escape(message)) as caught:
        run(tiny_config(), tmp_path / "out", stage=stage, load_checkpoint=start_files[kind])
    assert str(start_files[kind]) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("stage", "stages"), [("all", BOTH), ("pretraining", FIRST), ("training", SECOND)])
def test_without_a_file_the_requested_stages_run(stage: str, stages: tuple[str, ...]) -> None:
    start = start_fresh(stage)
    assert start.stages == stages
    assert start.generator is start.resume is None
    assert start.description.startswith(f"starting {stages[0]}")


def test_gan_stage_without_a_file_warns_of_random_weights(
    tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_config(), tmp_path, stage="training", max_steps=1) is True
    assert load_run_files(tmp_path).keys() == {"ESRGAN_x4", "ESRGAN_x4_best_model", "ESRGAN_x4_checkpoint"}
    assert {record["stage"] for record in read_records(tmp_path)} == {"training"}
    expected = "random weights; for good results the GAN stage needs a pretrained generator (-l)\n"
    assert expected in capsys.readouterr().out


def test_a_gan_model_can_be_fine_tuned(start_files: dict[str, Path], tiny_config: Make, tmp_path: Path) -> None:
    frozen = {"g_lr": 1e-12, "d_lr": 1e-12}
    assert run(
        tiny_config(training=frozen), tmp_path, stage="training", load_checkpoint=start_files["GAN model"], max_steps=1
    )
    trained, before = load_run_files(tmp_path)["ESRGAN_x4"]["params"], load_file(start_files["GAN model"])["params"]
    torch.testing.assert_close(trained, before, rtol=0, atol=1e-9)


def test_a_loaded_checkpoint_continues_under_its_run_name(tiny_config: Make, stop_run: Callable[[str], Path]) -> None:
    out_dir = stop_run("pretraining")
    (checkpoint,) = out_dir.glob("*_checkpoint.pth")
    assert run(tiny_config(), out_dir, stage="pretraining", load_checkpoint=checkpoint, max_steps=3) is True
    assert load_run_files(out_dir).keys() == {"PSNR_x4", "PSNR_x4_best_model", "PSNR_x4_checkpoint"}  # of one run
    assert len(read_records(out_dir)) == 5


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({"generator": {"rrdb_channels": 16}}, "RRDBNet ×4 16/4/1"),
        ({"generator": {"num_basic_blocks": 2}}, "RRDBNet ×4 8/4/2"),
        ({"scale_factor": 2}, "RRDBNet ×2 8/4/1"),
    ],
)
def test_a_file_of_another_architecture_is_an_error(
    start_files: dict[str, Path], tiny_config: Make, tmp_path: Path, changes: dict[str, Any], ours: str
) -> None:
    for kind in ("PSNR model", "PSNR checkpoint"):
        with pytest.raises(WeightsError) as caught:
            run(tiny_config(**changes), tmp_path / "out", load_checkpoint=start_files[kind])
        message = str(caught.value)
        assert str(start_files[kind]) in message
        assert f"expected the generator of the configuration, {ours}, got RRDBNet ×4 8/4/1" in message
        assert "\n" not in message
        assert not (tmp_path / "out").exists()


def test_a_different_residual_scaling_is_reported(
    start_files: dict[str, Path], tiny_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = ""
    try:
        run(
            tiny_config(generator={"residual_scaling": 0.5}),
            tmp_path,
            load_checkpoint=start_files["PSNR model"],
            dry_run=True,
        )
    except WeightsError as error:
        message = str(error)
    assert "residual_scaling" in message + capsys.readouterr().out


def test_an_incomplete_checkpoint_is_an_error(start_files: dict[str, Path], tmp_path: Path) -> None:
    content = load_file(start_files["PSNR checkpoint"])
    for key in ("run", "step", "best", "stage"):
        lacking = {name: value for name, value in content["checkpoint"].items() if name != key}
        save_file(tmp_path / "lacking.pth", content | {"checkpoint": lacking})
        with pytest.raises(WeightsError, match=r"lacking\.pth: incomplete checkpoint; save "):
            start_from_file(tmp_path / "lacking.pth", "all")


def test_a_missing_file_is_an_error(tiny_config: Make, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.pth: no such file"):
        run(tiny_config(), tmp_path / "out", load_checkpoint=tmp_path / "nothing.pth")
