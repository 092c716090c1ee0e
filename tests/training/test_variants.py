"""Training with other precisions, networks, kinds of images and numbers of loader workers."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from esrgan.errors import DeviceError, EsrganError
from esrgan.models import RRDBNet, VGGDiscriminator
from esrgan.training.stages import PixelStage
from esrgan.weights import load_generator
from tests.helpers.runs import (
    OPTIONS_BEYOND_THE_PAPER,
    STAGES,
    after_step,
    comparable_content,
    find_differences,
    load_run_files,
    press_ctrl_c,
    read_records,
    records_by_step,
    run,
)

pytestmark = pytest.mark.usefixtures("foreground_signals")

Make = Callable[..., dict[str, Any]]


@contextmanager
def record_dtypes() -> Iterator[dict[str, set[torch.dtype]]]:
    """Record the dtypes of network outputs and losses."""
    seen: dict[str, set[torch.dtype]] = {}
    with pytest.MonkeyPatch.context() as patch:
        for network in (RRDBNet, VGGDiscriminator):

            def forward(self: Any, x: Tensor, network: Any = network, original: Any = network.forward) -> Tensor:
                result: Tensor = original(self, x)
                seen.setdefault(network.__name__, set()).add(result.dtype)
                return result

            patch.setattr(network, "forward", forward)
        for stage in STAGES.values():

            def step(self: Any, *arguments: Any, original: Any = stage.step) -> dict[str, Tensor]:
                losses: dict[str, Tensor] = original(self, *arguments)
                seen.setdefault("losses", set()).update(v.dtype for k, v in losses.items() if k.endswith("loss"))
                return losses

            patch.setattr(stage, "step", step)
        yield seen


@pytest.mark.slow
def test_autocast_keeps_losses_and_weights_in_float32(
    tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("esrgan.training.setup.has_native_bfloat16", lambda _: False)
    with record_dtypes() as seen:
        assert run(tiny_config(), tmp_path, autocast=True, max_steps=2) is True
    assert seen == {
        "RRDBNet": {torch.bfloat16},
        "VGGDiscriminator": {torch.bfloat16},
        "losses": {torch.float32},
    }
    for content in load_run_files(tmp_path).values():
        assert all(value.dtype == torch.float32 for value in content["params"].values())
    assert "-a: this cpu emulates bfloat16; expect it to be slower than without -a" in capsys.readouterr().err
    assert all(math.isfinite(record["content_loss"]) for record in read_records(tmp_path))


def test_without_autocast_everything_is_float32(tiny_config: Make, tmp_path: Path) -> None:
    with record_dtypes() as seen:
        run(tiny_config(), tmp_path, max_steps=1, dry_run=True)
    assert set().union(*seen.values()) == {torch.float32}


def test_float16_on_a_cpu_is_an_error(tiny_config: Make, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="float16 needs a GPU; use bfloat16 on the CPU"):
        run(tiny_config(autocast_dtype="float16"), tmp_path / "out", autocast=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_training_works_on_whole_images(tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 2, (44, 40))
    write_images(folder / "more", 1, (34, 51))
    shutil.move(folder / "more" / "0.png", folder / "2.png")
    stage = {"cr_patch_size": None, "train_datasets": [str(folder)]}
    config = tiny_config(batch_size=1, pretraining=stage, training=stage, cache_dir=str(tmp_path / "cache"))
    shapes = set()
    original = PixelStage.step

    def step(self: Any, low: Tensor, high: Tensor, current: int, *target: Tensor) -> dict[str, Tensor]:
        shapes.add((*low.shape[-2:], *high.shape[-2:]))
        return original(self, low, high, current, *target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixelStage, "step", step)
        assert run(config, tmp_path / "out", max_steps=3) is True
    assert shapes == {(10, 11, 40, 44), (12, 8, 48, 32)}  # cropped to multiples of the scale, not rotated by 90°
    with pytest.raises(EsrganError) as caught:
        run(config | {"batch_size": 2}, tmp_path / "other")
    assert [problem.place for problem in caught.value.problems] == [
        "pretraining.cr_patch_size",
        "training.cr_patch_size",
    ]
    assert "batch_size to 1" in str(caught.value)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.slow
def test_grey_and_transparent_images_train_in_both_stages(
    tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path, channels: int
) -> None:
    folders = {split: write_images(tmp_path / split, 2, channels=channels) for split in ("train", "val")}
    stage = {f"{split}_datasets": [str(folder)] for split, folder in folders.items()}
    config = tiny_config(img_channels=channels, pretraining=stage, training=stage, cache_dir=str(tmp_path / "cache"))
    assert run(config, tmp_path / "out", max_steps=1) is True
    for path in (tmp_path / "out").glob("*_x4.pth"):
        assert load_generator(path).architecture.img_channels == channels
    for stage_name in STAGES:
        record = records_by_step(tmp_path / "out", "validation", stage_name)[1]
        assert all(math.isfinite(value) for key, value in record.items() if key not in ("split", "stage"))
        assert len(list((tmp_path / "out").glob(f"logs/*/{stage_name}.png"))) == 1


@pytest.mark.slow
def test_pixel_unshuffle_with_unet_discriminator_trains_and_resumes(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(
        scale_factor=2, generator={"pixel_unshuffle": True}, discriminator={"type": "unet", "num_features": 4}
    )
    assert run(config, tmp_path / "whole", max_steps=4) is True
    with after_step("training", 3, press_ctrl_c):
        assert run(config, tmp_path / "stopped", max_steps=4) is False
    assert run(config, tmp_path / "stopped", max_steps=4, resume=True) is True
    files, reference = load_run_files(tmp_path / "stopped"), load_run_files(tmp_path / "whole")
    assert files.keys() == reference.keys() >= {"PSNR_x2", "ESRGAN_x2"}
    assert all(
        not find_differences(comparable_content(files[name]), comparable_content(reference[name])) for name in files
    )
    (path,) = (tmp_path / "whole").glob("*_ESRGAN_x2.pth")
    architecture = load_generator(path).architecture
    assert (architecture.scale_factor, architecture.pixel_unshuffle) == (2, True)


@pytest.mark.slow
def test_a_compact_network_trains_in_both_stages_and_resumes(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(generator={"type": "compact", "num_feat": 8, "num_conv": 2}, activation_checkpointing=True)
    assert run(config, tmp_path / "whole", max_steps=4) is True
    with after_step("training", 3, press_ctrl_c):
        assert run(config, tmp_path / "stopped", max_steps=4) is False
    assert run(config, tmp_path / "stopped", max_steps=4, resume=True) is True
    files, reference = load_run_files(tmp_path / "stopped"), load_run_files(tmp_path / "whole")
    assert files.keys() == reference.keys() >= {"PSNR_x4", "ESRGAN_x4"}
    assert all(
        not find_differences(comparable_content(files[name]), comparable_content(reference[name])) for name in files
    )
    (path,) = (tmp_path / "whole").glob("*_Compact_ESRGAN_x4.pth")
    assert load_generator(path).describe() == "SRVGGNetCompact ×4 8/2, GAN stage"


@pytest.mark.slow
def test_loader_workers_do_not_change_the_result(reference_run: Path, tiny_config: Make, tmp_path: Path) -> None:
    run(tiny_config(num_workers=1), tmp_path, stage="pretraining")
    assert not find_differences(
        load_run_files(tmp_path)["PSNR_x4"]["params"], load_run_files(reference_run)["PSNR_x4"]["params"]
    )


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.slow
def test_every_option_beyond_the_paper_trains_and_resumes(tiny_config: Make, tmp_path: Path, autocast: bool) -> None:
    config = tiny_config(accumulation=2, activation_checkpointing=True, **OPTIONS_BEYOND_THE_PAPER)
    assert run(config, tmp_path / "whole", autocast=autocast) is True
    for stage, done in (("pretraining", 2), ("training", 4)):
        with after_step(stage, done, press_ctrl_c):
            assert run(config, tmp_path / "stopped", resume=True, autocast=autocast) is False
    assert run(config, tmp_path / "stopped", resume=True, autocast=autocast) is True
    files, reference = load_run_files(tmp_path / "stopped"), load_run_files(tmp_path / "whole")
    assert files.keys() == reference.keys() >= {"PSNR_x4", "ESRGAN_x4"}
    for name, content in files.items():
        assert not find_differences(comparable_content(content), comparable_content(reference[name])), name
    assert read_records(tmp_path / "stopped") == read_records(tmp_path / "whole")
    records = records_by_step(tmp_path / "whole", "train", "training")
    assert [record["d_paused"] for record in records.values()] == [0, 0, 0, 0, 1, 1]
    names = ("artifact", "consistency", "pattern")
    assert all(record[f"{name}_loss"] > 0 for record in records.values() for name in names)
