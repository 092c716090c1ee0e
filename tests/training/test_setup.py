"""Setup of a run: networks, inputs, and problems that are reported before it starts."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from esrgan.config import Config
from esrgan.config.cross_checks import smallest_gan_image
from esrgan.errors import EsrganError, Problem
from esrgan.losses import ContentLoss
from esrgan.training import TrainOptions, distributed, inputs, train
from esrgan.training.inputs import find_images
from esrgan.training.options import check_options
from esrgan.training.setup import make_autocast, make_networks, make_stage
from esrgan.training.stages import Autocast
from esrgan.training.validation import Losses
from tests.helpers.runs import find_differences, read_records, records_by_step, run

pytestmark = pytest.mark.usefixtures("foreground_signals")

CPU = torch.device("cpu")
Make = Callable[..., dict[str, Any]]


def first_content_loss(out_dir: Path) -> float:
    value: float = records_by_step(out_dir, "train", "pretraining")[1]["content_loss"]
    return value


@pytest.mark.parametrize(("other", "chosen"), [(torch.float16, torch.float16), (torch.bfloat16, torch.bfloat16)])
def test_all_processes_use_the_precision_that_each_of_them_has(
    monkeypatch: pytest.MonkeyPatch, other: torch.dtype, chosen: torch.dtype
) -> None:
    """The loss is scaled only for float16, so gradients of different precisions would have different sizes."""
    asked = []

    def any_rank(flag: bool) -> bool:
        asked.append(flag)
        return flag or other == torch.float16

    monkeypatch.setattr(distributed, "any_rank", any_rank)
    assert make_autocast(Config(), CPU, low_precision=True).dtype == chosen
    make_autocast(Config(), CPU, low_precision=False)  # takes part, although it may be refused later
    assert asked == [False, False]


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"discriminator": {"type": "unet", "num_features": 4}}, 8),
        ({"discriminator": {"type": "vgg_basicsr", "vgg_blk_ch": [4] * 6}, "batch_size": 2}, 8),
        ({"discriminator": {"vgg_blk_ch": [4, 4, 8, 8]}}, 5),  # batch normalisation needs two values
        ({"discriminator": {"vgg_blk_ch": [4, 4, 8, 8]}, "batch_size": 2}, 1),
    ],
)
def test_whole_images_must_suit_the_discriminator(options: dict[str, Any], size: int) -> None:
    perceptual_loss = {"layer_weights": {"conv1_2": 1.0}}
    stage = {"cr_patch_size": None, "g_artifact_loss_scaling": 0.0}
    config = Config.model_validate(
        {"scale_factor": 1, "batch_size": 1, "training": stage, "perceptual_loss": perceptual_loss} | options
    )
    assert smallest_gan_image(config) == size
    discriminator = make_networks(config, CPU)[1].train()
    assert discriminator(torch.zeros(config.batch_size, 3, size, size)).isfinite().all()
    if size > 1:
        with pytest.raises((RuntimeError, ValueError)):
            discriminator(torch.zeros(config.batch_size, 3, size - 1, size - 1))
    without = config.training.model_copy(update={"g_adversarial_loss_scaling": 0.0})
    assert smallest_gan_image(config.model_copy(update={"training": without})) == 1


def test_a_copy_of_a_configuration_may_list_its_datasets() -> None:
    changed = Config().pretraining.model_copy(update={"train_datasets": ["skimage"], "val_datasets": ["skimage"]})
    config = Config().model_copy(update={"pretraining": changed})
    found = [(split, len(pairs), problems) for _, split, pairs, _, problems in find_images(config, ["pretraining"])]
    assert found == [("train", 4, []), ("val", 2, [])]


def test_images_must_suit_the_vgg_network() -> None:
    layers = {"layer_weights": {"conv5_1": 1.0}}
    config = Config.model_validate({"scale_factor": 1, "training": {"cr_patch_size": None}, "perceptual_loss": layers})
    sizes = [size for _, _, _, size, _ in find_images(config, ["training"])]
    assert sizes == [(16, 16), (16, 16)]


@pytest.mark.parametrize("degradation", ["degradation", "photo_degradation"])
def test_scale_1_trains_without_lr_images_if_its_patches_are_degraded(
    tiny_config: Make, tmp_path: Path, degradation: str
) -> None:
    options = {"stage": "pretraining", "max_steps": 1}
    stage = {"val_datasets": []}
    config = tiny_config(scale_factor=1, pretraining=stage)
    with pytest.raises(EsrganError, match="expected LR images for scale 1, got none"):
        run(config, tmp_path, **options)
    assert run(tiny_config(scale_factor=1, pretraining=stage | {degradation: {}}), tmp_path, **options) is True


def test_missing_val_datasets_are_named_instead_of_their_default(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(data_root=str(tmp_path / "data"))
    for section in ("pretraining", "training"):
        del config[section]["val_datasets"]
    with pytest.raises(EsrganError) as caught:
        run(config, tmp_path / "out")
    place, remedy = (
        tmp_path / "data",
        "list folders of validation images there, or write [] to train without validation",
    )
    assert list(caught.value.problems) == [
        f"{section}: val_datasets is not given, and its default, div2k, is not in {place}; {remedy}"
        for section in ("pretraining", "training")
    ]
    assert not (tmp_path / "out").exists()


def test_without_any_datasets_the_default_is_offered_as_download(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(data_root=str(tmp_path / "data"))
    for key in ("train_datasets", "val_datasets"):
        del config["pretraining"][key]
    with pytest.raises(EsrganError, match="download it with: esrgan prepare div2k") as caught:
        run(config, tmp_path / "out", stage="pretraining")
    assert "is not given" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "gan"}, "stage: expected pretraining, training or all, got 'gan'"),
        ({"max_steps": 0}, "max_steps: expected an integer of at least 1, got 0"),
        ({"max_steps": -1}, "max_steps: expected an integer of at least 1, got -1"),
        ({"max_steps": 1.5}, "max_steps: expected an integer of at least 1, got 1.5"),
        ({"checkpoint_interval": 0}, "checkpoint_interval: expected an integer of at least 1, got 0"),
        ({"store_model_interval": -2}, "store_model_interval: expected an integer of at least 1, got -2"),
        ({"best_checkpoint_warmup": None}, "best_checkpoint_warmup: expected an integer of at least 0, got None"),
        ({"out_dir": None}, "out_dir: expected a path, got None"),
        ({"out_dir": ""}, "out_dir: expected a path, got ''"),
        ({"load_checkpoint": 1}, "load_checkpoint: expected a path, got 1"),
        ({"run_name": 7}, "run_name: expected a text, got 7"),
    ],
)
def test_wrong_options_are_one_error_before_anything_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EsrganError) as caught:
        train(Config(), TrainOptions(**options))
    assert str(caught.value) == message
    with pytest.raises(EsrganError, match="options: expected TrainOptions, got dict"):
        train(Config(), options)  # type: ignore[arg-type]
    with pytest.raises(EsrganError, match="config: expected a Config, got str; read a file with load_config"):
        train("cfg.json", TrainOptions())


def test_paths_of_the_options_may_be_text(tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = Config.model_validate(tiny_config())
    common = {"out_dir": "~/runs", "run_name": "mine", "device": "cpu"}
    assert train(config, TrainOptions(**common, stage="pretraining", max_steps=1)) is True
    checkpoint = "~/runs/mine_RRDB_PSNR_x4_checkpoint.pth"
    for options in ({"load_checkpoint": checkpoint}, {"load_checkpoint": Path(checkpoint)}, {"resume": True}):
        assert train(config, TrainOptions(**common, **options, stage="pretraining", max_steps=1)) is True
    assert (tmp_path / "runs" / "mine_RRDB_PSNR_x4.pth").exists()
    assert not (tmp_path / "~").exists()


def test_another_seed_gives_another_result(reference_run: Path, tiny_config: Make, tmp_path: Path) -> None:
    run(tiny_config(seed=4), tmp_path, stage="pretraining", max_steps=1)
    ours, theirs = (first_content_loss(folder) for folder in (tmp_path, reference_run))
    assert ours != theirs
    one, other = (make_networks(Config.model_validate(tiny_config(seed=seed)), CPU) for seed in (3, 4))
    for network, another in zip(one, other, strict=True):
        assert len(find_differences(dict(network.state_dict()), dict(another.state_dict()))) > 3


def test_making_networks_preserves_the_global_random_state(tiny_config: Make) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make_networks(Config.model_validate(tiny_config()), CPU)
    assert torch.equal(torch.rand(3), expected)


def test_all_problems_are_reported_before_anything_is_written(
    tiny_config: Make, write_images: Callable[..., Path], no_vgg_weights: Path, tmp_path: Path
) -> None:
    pair = {"hr": str(write_images(tmp_path / "hr", 2)), "lr": str(write_images(tmp_path / "lr", 1, (11, 10)))}
    config = tiny_config(
        cache_dir=str(tmp_path / "cache"),
        pretraining={"train_datasets": ["nowhere", "set5"]},
        training={"train_datasets": [pair, "nowhere"], "val_datasets": ["elsewhere"]},
        perceptual_loss={"weights": None},
        data_root=str(tmp_path / "data"),
    )
    with pytest.raises(EsrganError) as caught:
        run(config, tmp_path / "out")
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    assert text.count("dataset nowhere") == 1  # although both stages use it
    for part in ("dataset set5", "1.png", "dataset elsewhere"):
        assert part in text, part
    assert "the ImageNet weights of vgg11" in text
    assert "perceptual_loss.weights" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"training": {"train_datasets": ["nowhere"]}}, {}, "dataset nowhere"),
        ({"training": {"num_steps": None, "num_epoch": 1, "warmup_steps": 9}}, {}, "training.warmup_steps: expected"),
        ({"perceptual_loss": {"weights": "no.pth"}}, {}, "no.pth"),
        ({}, {"run_name": "taken"}, "already has a run named taken"),
        ({}, {"run_name": "a/b"}, "run name 'a/b': expected a part of a file name"),
        ({}, {"run_name": "file"}, "file: expected a folder, got a file"),
        ({"seed": 4}, {"run_name": "taken", "resume": True}, "has the seed 3 instead of 4"),
        ({"logging": {"wandb": "offline", "wandb_project": "a/b"}}, {}, "wandb"),
    ],
)
def test_what_is_wrong_without_the_images_is_reported_before_they_are_decoded(
    tiny_config: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    options: dict[str, Any],
    message: str,
) -> None:
    run(tiny_config(), tmp_path / "out", stage="pretraining", max_steps=1, run_name="taken")
    (tmp_path / "out/logs/file").touch()
    monkeypatch.setattr(inputs, "cache_pairs", lambda *_, **__: pytest.fail("images were decoded"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EsrganError, match=re.escape(message)):
        run(tiny_config(**changes), tmp_path / "out", **options)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("stage", "count"), [("pretraining", 1), ("training", 2), ("all", 3)])
def test_only_the_requested_stages_need_their_data(tiny_config: Make, tmp_path: Path, stage: str, count: int) -> None:
    config = tiny_config(
        pretraining={"train_datasets": ["a"]}, training={"train_datasets": ["b"], "val_datasets": ["c"]}
    )
    with pytest.raises(EsrganError) as caught:
        run(config, tmp_path / "out", stage=stage)
    assert len(caught.value.problems) == count


def test_a_gan_run_without_vgg_weights_is_an_error(tiny_config: Make, no_vgg_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(EsrganError) as caught:
        run(tiny_config(perceptual_loss={"weights": None}), tmp_path / "out")
    (problem,) = caught.value.problems
    for part in ("ImageNet weights of vgg11", "no network in tests", str(no_vgg_weights), "perceptual_loss.weights"):
        assert part in str(problem), part
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_a_run_downloads_and_downloads_nothing(
    tiny_config: Make, no_vgg_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(perceptual_loss={"weights": None})
    assert run(config, tmp_path / "out", dry_run=True) is True
    lines = capsys.readouterr().out.splitlines()
    assert "dry run: the run takes about " in lines[0]
    assert lines[3].startswith(
        f"dry run: the run downloads the ImageNet weights of vgg11 (about 550 MB) to {no_vgg_weights}"
    )
    assert "so its perceptual loss means nothing" in lines[3]
    assert lines[-1].startswith("dry run: everything else is in place; nothing was downloaded")
    assert not no_vgg_weights.exists()
    assert run(config, tmp_path / "out", stage="pretraining", dry_run=True) is True
    assert "dry run: the run downloads nothing\n" in capsys.readouterr().out


def test_configured_vgg_weights_are_never_optional(tiny_config: Make, tmp_path: Path) -> None:
    config = tiny_config(
        perceptual_loss={"weights": "no.pth", "optional": True}, pretraining={"val_datasets": ["nowhere"]}
    )
    with pytest.raises(EsrganError) as caught:
        run(config, tmp_path / "out")
    assert [str(problem).split(":")[0] for problem in caught.value.problems] == ["dataset nowhere", "no.pth"]


def test_a_gan_stage_without_any_loss_is_refused(tiny_config: Make, no_vgg_weights: Path, tmp_path: Path) -> None:
    zero = dict.fromkeys(("g_content_loss_scaling", "g_adversarial_loss_scaling"), 0)
    config = tiny_config(perceptual_loss={"weights": None, "optional": True}, training=zero)
    with pytest.raises(EsrganError, match="training: expected a weight above 0 among g_adversarial_loss_scaling, "):
        run(config, tmp_path, stage="training", max_steps=1)


def test_what_begins_small_reaches_its_value_before_the_last_epoch_ends(tiny_config: Make, tmp_path: Path) -> None:
    length = {"num_steps": None, "num_epoch": 2}
    config = tiny_config(
        pretraining=length | {"warmup_steps": 999}, training=length | {"g_adversarial_ramp_steps": 999}
    )
    with pytest.raises(EsrganError) as error:
        run(config, tmp_path, stage="all")
    keys = ("pretraining.warmup_steps", "training.g_adversarial_ramp_steps")
    for line, key in zip(str(error.value).splitlines(), keys, strict=True):
        end = r"expected fewer than the \d+ steps of num_epoch 2, got 999; change one of them"
        assert re.fullmatch(f"{re.escape(key)}: {end}", line)


@pytest.mark.parametrize(
    ("stage", "optional", "line"),
    [
        ("all", True, ": training without the perceptual loss; to use it, set perceptual_loss.weights"),
        ("pretraining", False, ": validating without the perceptual loss; to use it, set perceptual_loss.weights"),
    ],
)
def test_skipping_the_perceptual_loss_is_reported(
    tiny_config: Make,
    no_vgg_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    optional: bool,
    line: str,
) -> None:
    config = tiny_config(perceptual_loss={"weights": None, "optional": optional})
    assert run(config, tmp_path, stage=stage, max_steps=1) is True
    out = capsys.readouterr().out
    assert out.count("no ImageNet weights of vgg11 on this machine") == 1
    assert line in out
    # Weights are only ever downloaded for the GAN stage.
    assert ("or remove perceptual_loss.optional to download them (about 550 MB)" in out) is optional
    assert not any("perceptual_loss" in record for record in read_records(tmp_path))
    if stage == "all":
        record, gan = records_by_step(tmp_path, "train", "training")[1], Config().training
        parts = gan.g_adversarial_loss_scaling * record["g_adversarial_loss"]
        parts += gan.g_content_loss_scaling * record["content_loss"]
        assert record["g_total_loss"] == pytest.approx(parts, rel=1e-5)


def test_image_problems_have_a_place_and_a_remedy(
    tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path
) -> None:
    transparent = write_images(tmp_path / "transparent", 1, channels=4)
    small = write_images(tmp_path / "small", 1, (18, 18))
    (tmp_path / "empty").mkdir()
    for folder, expected in (
        (small, [str(transparent / "0.png"), str(small / "0.png")]),
        (tmp_path / "empty", [f"dataset {tmp_path / 'empty'}"]),
    ):
        stage = {"train_datasets": [str(transparent)], "val_datasets": [str(folder)]}
        with pytest.raises(EsrganError) as caught:
            run(tiny_config(cache_dir=str(tmp_path / "cache"), pretraining=stage), tmp_path / "out")
        problems = [problem for problem in caught.value.problems if isinstance(problem, Problem)]
        assert [problem.place for problem in problems] == expected
        assert all(problem.remedy for problem in problems)


def test_the_requested_minimum_size_suffices(
    tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path
) -> None:
    def refusal(side: int) -> str:
        folder = write_images(tmp_path / str(side), 1, (side, side))
        config = tiny_config(cache_dir=str(tmp_path / "cache"), pretraining={"val_datasets": [str(folder)]})
        try:
            run(config, tmp_path / "out", stage="pretraining", dry_run=True)
        except EsrganError as error:
            return str(error)
        return ""

    message = refusal(19)  # cropped to 16 px, a multiple of the scale
    asked = re.search(r"at least (\d+)×\1 px", message)
    assert asked, message
    assert refusal(int(asked[1])) == ""


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="file names are always Unicode here")
def test_names_that_are_not_unicode_and_equal_names_in_two_classes_train(
    tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    write_images(folder / "colour", 2)
    write_images(folder / "grey", 2, channels=1)
    (folder / "grey/1.png").rename(folder / "grey" / os.fsdecode(b"caf\xe9.png"))
    config = tiny_config(cache_dir=str(tmp_path / "cache"), pretraining={"train_datasets": [str(folder)]})
    assert run(config, tmp_path / "out", stage="pretraining", max_steps=1)


def test_files_left_out_are_reported_once_by_each_run(
    tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "photos", 2)
    (folder / "notes.txt").touch()
    section = {"train_datasets": [str(folder)]}
    config = tiny_config(cache_dir=str(tmp_path / "cache"), pretraining=section, training=section)
    for name in ("first", "second"):
        run(config, tmp_path / name, dry_run=True)
        assert capsys.readouterr().out.count("2 images; left out: 1 .txt file") == 1


def test_the_disk_must_have_space_for_the_images_of_both_stages(
    tiny_config: Make, write_images: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, more = write_images(tmp_path / "few", 2), write_images(tmp_path / "more", 3)
    sections = [{"train_datasets": [str(folder)], "val_datasets": [str(few)]} for folder in (few, more)]
    config = tiny_config(cache_dir=str(tmp_path / "cache"), pretraining=sections[0], training=sections[1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(
        EsrganError, match=r"^cache .* free for 5 decoded images, got 0\.0 kB; free some space, or set [^\n]*$"
    ):
        run(config, tmp_path / "out")


def test_a_cosine_schedule_needs_the_number_of_steps() -> None:
    config = Config.model_validate({"pretraining": {"sched": "cosine"}, "generator": {"num_basic_blocks": 1}})
    losses = Losses(ContentLoss(), None, Autocast(CPU))
    with pytest.raises(EsrganError, match=r"pretraining\.sched: cosine needs the length of the stage in steps"):
        make_stage("pretraining", config, *make_networks(config, CPU), losses)


def test_numbers_in_options_may_be_those_of_numpy_but_not_truth_values():
    check_options(TrainOptions(max_steps=np.int64(5)))
    with pytest.raises(EsrganError, match="max_steps: expected an integer of at least 1, got True"):
        check_options(TrainOptions(max_steps=True))
