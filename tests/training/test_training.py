"""The trainer: steps against hand-written ones, whole runs, interrupted and killed ones, and what runs start from."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from esrgan import metrics
from esrgan.config import Config
from esrgan.data import PatchDataset, batches, find_pairs, prepare, read_whole
from esrgan.errors import DatasetError, DeviceError, EsrganError, Problem, WeightsError
from esrgan.interpolation import blend
from esrgan.losses import ContentLoss, PerceptualLoss
from esrgan.models import RRDBNet, UNetDiscriminator, VGGDiscriminator
from esrgan.training import loop
from esrgan.training.checkpoint import RunFiles, fresh_start, newest_checkpoint, save_checkpoint, start_from
from esrgan.training.ema import ExponentialMovingAverage
from esrgan.training.setup import make_networks
from esrgan.training.stages import AdversarialStage, Autocast, PixelStage
from esrgan.training.updater import Updater, multi_step_schedule, step_schedule
from esrgan.weights import load_file, load_generator, save_file
from tests.helpers.runs import (
    RATES,
    STAGES,
    Killed,
    after_step,
    contents,
    differing,
    kill,
    learnt,
    logged,
    press_ctrl_c,
    records,
    run,
)

pytestmark = pytest.mark.usefixtures("own_signals")

CPU = torch.device("cpu")
Make = Callable[..., dict[str, Any]]


@contextmanager
def killed_after_checkpoint(stage: str, step: int) -> Iterator[None]:
    """Kill the run just after it has written the checkpoint of a step."""

    def save(path: Path, content: dict[str, Any], keep: int) -> None:
        save_checkpoint(path, content, keep)
        if (content["stage"], content["checkpoint"]["step"]) == (stage, step):
            kill()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        yield


@pytest.fixture(scope="module")
def whole(tiny: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of an undisturbed run of both stages, with everything switched on that it can write."""
    out_dir = tmp_path_factory.mktemp("whole")
    config = tiny(logging={"tensorboard": True})
    assert run(config, out_dir, checkpoint_interval=1, store_model_interval=1) is True
    return out_dir


# A step of each stage


def small_generator() -> RRDBNet:
    torch.manual_seed(1)
    return RRDBNet(4, 3, 8, 4, 1, small_init="trunk").double()


def random_batch(step: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(step)
    shapes = ((2, 3, 8, 8), (2, 3, 32, 32))
    low, high = (torch.rand(shape, generator=random, dtype=torch.float64) for shape in shapes)
    return low, high


def adam(network: nn.Module, learning_rate: float, betas: tuple[float, float]) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), learning_rate, betas, foreach=False, fused=False)


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(dict(one.named_parameters()), dict(other.named_parameters()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss_f", ["l1", "mse"])
def test_a_step_of_the_pixel_stage_is_a_step_of_adam_on_the_content_loss(loss_f: str) -> None:
    generator, betas = small_generator(), (0.8, 0.95)
    updater = Updater(generator, step_schedule(1e-2, 2, 0.1), betas)
    stage = PixelStage(generator, ContentLoss(loss_f), updater, Autocast(CPU))
    reference = small_generator()
    optimizer = adam(reference, 1e-2, betas)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)
    for step in range(4):
        low, high = random_batch(step)
        losses = stage.step(low, high, step)
        difference = reference(low) - high
        loss = difference.abs().mean() if loss_f == "l1" else difference.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert losses.keys() == {"content_loss", "gradient_norm"}
        gradient = torch.cat([parameter.grad.flatten() for parameter in reference.parameters()])
        assert losses["gradient_norm"].item() == pytest.approx(gradient.norm().item(), rel=1e-9)
        assert losses["content_loss"].item() == pytest.approx(loss.item(), rel=1e-9)
        assert not losses["content_loss"].requires_grad
        assert stage.learning_rates(step) == {"learning_rate": pytest.approx(scheduler.get_last_lr()[0], rel=1e-12)}
        scheduler.step()
        assert_same_weights(generator, reference)


def perceptual_distance(state: dict[str, Tensor], fake: Tensor, real: Tensor) -> Tensor:
    """Compare conv2_1 of VGG11, before its activation, as the paper would, in float32."""

    def features(image: Tensor) -> Tensor:
        mean, deviation = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x = (image.float() - mean) / deviation
        x = F.conv2d(x, state["features.0.weight"], state["features.0.bias"], padding=1)
        x = F.max_pool2d(x.relu(), 2)
        return F.conv2d(x, state["features.3.weight"], state["features.3.bias"], padding=1)

    return (features(fake) - features(real)).abs().mean()


@pytest.mark.parametrize("discriminator_type", ["vgg", "unet"])
@pytest.mark.parametrize("with_perceptual", [False, True])
def test_a_step_of_the_gan_stage_updates_the_generator_then_the_discriminator(
    vgg11_weights: Path, with_perceptual: bool, discriminator_type: str
) -> None:
    state = load_file(vgg11_weights)
    generator = small_generator()
    torch.manual_seed(2)
    discriminator = (
        VGGDiscriminator(3, (4, 4, 8, 8), (10,)) if discriminator_type == "vgg" else UNetDiscriminator(3, 4)
    ).double()
    ref_g, ref_d = copy.deepcopy(generator), copy.deepcopy(discriminator)
    adversarial_scaling, content_scaling, betas = 0.3, 0.7, (0.7, 0.98)
    stage = AdversarialStage(
        generator,
        discriminator,
        ContentLoss("l1"),
        PerceptualLoss(state, {"conv2_1": 1.0}, "vgg11") if with_perceptual else None,
        Updater(generator, multi_step_schedule(1e-2, [1], 0.1), betas),
        Updater(discriminator, multi_step_schedule(2e-2, [2], 0.1), betas),
        adversarial_scaling,
        content_scaling,
        Autocast(CPU),
    )
    g_adam, d_adam = adam(ref_g, 1e-2, betas), adam(ref_d, 2e-2, betas)
    g_scheduler = torch.optim.lr_scheduler.MultiStepLR(g_adam, [1], 0.1)
    d_scheduler = torch.optim.lr_scheduler.MultiStepLR(d_adam, [2], 0.1)
    bce = F.binary_cross_entropy_with_logits
    for step in range(3):
        low, high = random_batch(step)
        target = random_batch(step + 10)[1] if step else high  # such as a sharpened one, which no critic sees
        losses = stage.step(low, high, step, *([target] if step else []))

        # Each against the other as it is, from one look at the images: a second one would change spectral norms.
        fake = ref_g(low)
        real_logits, fake_logits = ref_d(high), ref_d(fake)
        zeros, ones = torch.zeros_like(real_logits), torch.ones_like(real_logits)
        adversarial = 0.5 * (
            bce(real_logits.detach() - fake_logits.mean(), zeros) + bce(fake_logits - real_logits.detach().mean(), ones)
        )
        content = (fake - target).abs().mean()
        total = adversarial_scaling * adversarial + content_scaling * content
        if with_perceptual:
            perceptual = perceptual_distance(state, fake, target)
            total = total + perceptual
        discriminating = 0.5 * (
            bce(real_logits - fake_logits.mean(), ones) + bce(fake_logits - real_logits.mean(), zeros)
        )
        for name, network, loss, optimizer in (("g", ref_g, total, g_adam), ("d", ref_d, discriminating, d_adam)):
            gradients = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient
            norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
            assert losses[f"{name}_gradient_norm"].item() == pytest.approx(norm.item(), rel=1e-6)
            optimizer.step()

        expected = {
            "content_loss": content,
            "g_adversarial_loss": adversarial,
            "g_total_loss": total,
            "d_adversarial_loss": discriminating,
        }
        if with_perceptual:
            expected["perceptual_loss"] = perceptual
        assert {name for name in losses if name.endswith("loss")} == expected.keys()
        for name, value in expected.items():
            assert losses[name].item() == pytest.approx(value.item(), rel=1e-6), name
            assert not losses[name].requires_grad
        rates = {"g_learning_rate": g_scheduler.get_last_lr()[0], "d_learning_rate": d_scheduler.get_last_lr()[0]}
        assert stage.learning_rates(step) == pytest.approx(rates, rel=1e-12)
        g_scheduler.step()
        d_scheduler.step()
        assert_same_weights(generator, ref_g)
        assert_same_weights(discriminator, ref_d)


def test_a_longer_gradient_is_shortened() -> None:
    free, bound = (
        PixelStage(g, ContentLoss(), Updater(g, step_schedule(1e-2, 9, 0.1), (0.0, 0.0), max_norm=norm), Autocast(CPU))
        for g, norm in ((small_generator(), None), (small_generator(), 1e-9))
    )
    batch = random_batch(0)
    assert free.step(*batch, 0)["gradient_norm"] == bound.step(*batch, 0)["gradient_norm"] > 1e-9
    start = parameters_to_vector(small_generator().parameters())
    moved = [(parameters_to_vector(each.generator.parameters()) - start).norm() for each in (free, bound)]
    assert 0 < moved[1] < moved[0] / 100  # Adam's epsilon, 1e-8, is as long as all of the gradient


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("stage_name", ["pretraining", "training"])
def test_a_step_that_is_not_finite_changes_nothing(stage_name: str, bad: float) -> None:
    generator, discriminator = small_generator(), VGGDiscriminator(3, (4, 4), (10,)).double()
    schedule = step_schedule(1e-3, 1, 1.0)
    updaters = Updater(generator, schedule, (0.9, 0.99)), Updater(discriminator, schedule, (0.9, 0.99))
    stage = (
        PixelStage(generator, ContentLoss(), updaters[0], Autocast(CPU))
        if stage_name == "pretraining"
        else AdversarialStage(generator, discriminator, ContentLoss(), None, *updaters, 1.0, 1.0, Autocast(CPU))
    )
    stage.step(*random_batch(0), 0)
    before = copy.deepcopy((generator.state_dict(), [each.state_dict() for each in updaters]))
    weights = copy.deepcopy(dict(discriminator.named_parameters()))
    low, high = random_batch(1)
    high[0, 0, 0, 0] = bad  # the loss is infinite, but the gradient of l1 is not
    losses = stage.step(low, high, 1)
    assert not losses["content_loss"].isfinite()
    assert not losses.get("gradient_norm", losses.get("g_gradient_norm")).isfinite()
    assert not differing(before, (generator.state_dict(), [each.state_dict() for each in updaters]))
    assert not differing(weights, dict(discriminator.named_parameters()))
    stage.step(*random_batch(2), 2)
    assert differing(before, (generator.state_dict(), [each.state_dict() for each in updaters]))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_parts_of_a_batch_and_checkpointed_activations_are_the_whole_batch(checkpointing: bool) -> None:
    whole, parts = (
        PixelStage(g, ContentLoss(), Updater(g, step_schedule(1e-2, 9, 0.1), (0.9, 0.99)), Autocast(CPU), count)
        for g, count in ((small_generator(), 1), (small_generator(), 2))
    )
    parts.generator.activation_checkpointing = checkpointing
    for step in range(3):
        one, other = (stage.step(*random_batch(step), step) for stage in (whole, parts))
        assert one["content_loss"].item() == pytest.approx(other["content_loss"].item(), rel=1e-12)
        assert one["gradient_norm"].item() == pytest.approx(other["gradient_norm"].item(), rel=1e-9)
    assert_same_weights(whole.generator, parts.generator)


def test_parts_of_a_batch_in_the_gan_stage_are_judged_by_themselves() -> None:
    generator, discriminator = small_generator(), VGGDiscriminator(3, (4, 4), (10,)).double()
    schedule = step_schedule(1e-3, 1, 1.0)

    def stage(g: RRDBNet, d: nn.Module, parts: int) -> AdversarialStage:
        updaters = Updater(g, schedule, (0.9, 0.99)), Updater(d, schedule, (0.9, 0.99))
        return AdversarialStage(g, d, ContentLoss(), None, *updaters, 1.0, 1.0, Autocast(CPU), parts)

    batches = [random_batch(0), random_batch(1)]
    singles = [stage(*copy.deepcopy((generator, discriminator)), 1).step(*batch, 0) for batch in batches]
    joined = stage(generator, discriminator, 2).step(*(torch.cat(images) for images in zip(*batches, strict=True)), 0)
    for name in ("content_loss", "g_adversarial_loss", "d_adversarial_loss", "g_total_loss", "real_logits"):
        mean = sum(single[name].item() for single in singles) / 2
        assert joined[name].item() == pytest.approx(mean, rel=1e-9), name


@pytest.mark.parametrize("every", [1, 3, 7])
def test_the_step_schedule_is_torchs(every: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, every, 0.5)
    ours = step_schedule(2e-4, every, 0.5)
    for step in range(40):
        assert ours(step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12), step
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("milestones", [[], [1], [3, 4, 20], [10, 30]])
def test_the_multi_step_schedule_is_torchs(milestones: list[int]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.3)
    ours = multi_step_schedule(1e-4, milestones, 0.3)
    for step in range(40):
        assert ours(step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12), step
        optimizer.step()
        scheduler.step()


def test_the_average_follows_its_formula_through_and_after_its_warm_up() -> None:
    network = small_generator()
    ema = ExponentialMovingAverage(network, 0.5)
    expected = copy.deepcopy(network.state_dict())
    for step in range(14):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn_like(parameter)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        assert (decay == 0.5) == (step >= 8)
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in network.state_dict().items()}
        torch.testing.assert_close(dict(ema.average.state_dict()), expected, rtol=1e-12, atol=1e-12)
    assert not any(parameter.requires_grad for parameter in ema.average.parameters())


def test_without_decay_the_average_is_the_network() -> None:
    network = small_generator()
    ema = ExponentialMovingAverage(network, 0)
    for step in (0, 1, 100):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter *= 1.1
        ema.update(step)
        assert not differing(dict(ema.average.state_dict()), dict(network.state_dict()))


def test_losses_are_scaled_for_float16_alone() -> None:
    scaled = {dtype: Autocast(CPU, dtype).scale_loss for dtype in (None, torch.bfloat16, torch.float16)}
    assert scaled == {None: False, torch.bfloat16: False, torch.float16: True}
    updater = Updater(small_generator(), step_schedule(1, 1, 1), (0.9, 0.99), Autocast(CPU, torch.bfloat16).scale_loss)
    assert not updater.scaler.is_enabled()
    assert updater.state_dict()["scaler"] == {}


def test_a_checkpoint_without_loss_scaling_continues_with_it() -> None:
    network, schedule = small_generator(), step_schedule(1e-3, 1, 1.0)
    without = Updater(network, schedule, (0.9, 0.99), scale_loss=False)
    scaling = Updater(network, schedule, (0.9, 0.99), scale_loss=True)
    without.rate_factor = 0.25
    fresh = scaling.scaler.state_dict()
    scaling.load_state_dict(without.state_dict())  # train, stop, go on with -a on a GPU without bfloat16
    assert scaling.scaler.state_dict() == fresh
    assert scaling.rate_factor == 0.25
    scaling.rate_factor = 0.5
    without.load_state_dict(scaling.state_dict())
    assert without.rate_factor == 0.5


# What a run leaves


def test_a_run_leaves_its_files_under_its_name(whole: Path) -> None:
    names = {path.name for path in whole.glob("*.pth")}
    runs = {name.partition("_RRDB_")[0] for name in names}
    (name,) = runs
    assert re.fullmatch(r"\d{8}-\d{6}", name)
    suffixes = ("", "_best_model", "_checkpoint", "_e1", "_e2", "_e3")
    assert names == {f"{name}_RRDB_{kind}_x4{suffix}.pth" for kind in ("PSNR", "ESRGAN") for suffix in suffixes}
    assert {path.name for path in whole.iterdir()} == names | {"logs"}
    logs = {path.name for path in (whole / "logs" / name).iterdir()}
    assert logs == {".lock", "log.jsonl", "pretraining.png", "training.png", "tensorboard"}


@pytest.mark.parametrize(("kind", "stage"), [("PSNR", "pretraining"), ("ESRGAN", "training")])
def test_model_files_hold_the_average_and_how_it_was_made(whole: Path, tiny: Make, kind: str, stage: str) -> None:
    files = contents(whole)
    model, checkpoint = files[f"{kind}_x4"], files[f"{kind}_x4_checkpoint"]
    assert model.keys() == {"params", "stage", "hparams"}
    assert model["stage"] == checkpoint["stage"] == stage
    expected = Config.model_validate(tiny(logging={"tensorboard": True})).as_dict()
    assert model["hparams"] == checkpoint["hparams"] == expected
    assert not differing(model["params"], checkpoint["params_ema"])
    assert differing(checkpoint["params"], checkpoint["params_ema"])  # the network itself goes on being trained
    assert not differing(model, files[f"{kind}_x4_e3"])
    assert differing(files[f"{kind}_x4_e1"]["params"], files[f"{kind}_x4_e2"]["params"])
    assert checkpoint["checkpoint"]["step"] == 6
    for path in whole.glob(f"*_{kind}_*.pth"):
        file = load_generator(path)
        assert (file.stage, file.hparams) == (stage, expected)
        network = file.build()
        assert (network.scale_factor, network.conv_first.out_channels) == (4, 8)
        assert all(value.dtype == torch.float32 for value in file.state.values())


def test_the_pretraining_is_what_a_hand_written_loop_makes_of_it(whole: Path, tiny: Make, photos: Path) -> None:
    config = Config.model_validate(tiny())
    generator, _ = make_networks(config, CPU)
    pairs = prepare(
        find_pairs([str(photos / "train")], "train", 4, photos),
        scale=4,
        channels=3,
        min_size=(32, 32),
        cache_dir=photos / "cache",
    )
    patches = PatchDataset(pairs, scale=4, patch_size=(32, 32), seed=config.seed, spatial_transforms="d4")
    optimizer = adam(generator, 1e-3, (0.9, 0.999))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
    average = {name: value.clone() for name, value in generator.state_dict().items()}
    for step, (low, high) in enumerate(batches(patches, batch_size=2, first_step=0, last_step=6)):
        loss = F.l1_loss(generator(low.float() / 255), high.float() / 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        decay = (1 + step) / (10 + step)
        average = {name: decay * average[name] + (1 - decay) * value for name, value in generator.state_dict().items()}
        record = logged(whole, "train", "pretraining")[step + 1]
        assert record["content_loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert record["learning_rate"] == (1e-3 if step < 4 else 5e-4)
    torch.testing.assert_close(contents(whole)["PSNR_x4"]["params"], average, rtol=0, atol=1e-5)


def test_the_log_has_every_step_and_every_validation(whole: Path) -> None:
    gan = {"g_adversarial_loss", "g_total_loss", "d_adversarial_loss", "g_learning_rate", "d_learning_rate"}
    gan |= {"perceptual_loss", "real_logits", "fake_logits", "g_gradient_norm", "d_gradient_norm"}
    gan |= {"g_gradient_norm_peak", "d_gradient_norm_peak"}
    for stage, names in (("pretraining", {"learning_rate", "gradient_norm", "gradient_norm_peak"}), ("training", gan)):
        train_records, validation = logged(whole, "train", stage), logged(whole, "validation", stage)
        assert (list(train_records), list(validation)) == ([1, 2, 3, 4, 5, 6], [2, 4, 6])
        where = {"split", "stage", "step"}
        common = where | {"content_loss", "skipped_steps"}
        assert all(record.keys() == common | names for record in train_records.values())
        figures = {"content_loss", "perceptual_loss", "PSNR", "SSIM", "PSNR_RGB", "SSIM_RGB"}
        assert all(record.keys() == where | figures for record in validation.values())
    (log,) = whole.glob("logs/*/log.jsonl")
    for line in log.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        assert set(RATES) <= record.keys() or (record["split"], "time" in record) == ("validation", True)
    g_rates = [record["g_learning_rate"] for record in logged(whole, "train", "training").values()]
    d_rates = [record["d_learning_rate"] for record in logged(whole, "train", "training").values()]
    assert g_rates == pytest.approx([1e-3] * 3 + [5e-4] * 2 + [2.5e-4])
    assert d_rates == pytest.approx([2e-3] * 4 + [1e-3] * 2)


@pytest.mark.parametrize(("kind", "stage"), [("PSNR", "pretraining"), ("ESRGAN", "training")])
def test_validation_measures_the_average_on_whole_images(
    whole: Path, photos: Path, vgg11_weights: Path, kind: str, stage: str
) -> None:
    (path,) = whole.glob(f"*_{kind}_x4.pth")
    network, rows = load_generator(path).build(), []
    high_paths = sorted((photos / "val").iterdir())
    pairs = prepare(
        find_pairs([str(photos / "val")], "val", 4, photos),
        scale=4,
        channels=3,
        min_size=(1, 1),
        cache_dir=photos / "cache",
    )
    lows = {pair.source.high: read_whole(pair)[0] for pair in pairs}
    for high_path in high_paths:
        high = np.array(Image.open(high_path))
        low = torch.from_numpy(lows[high_path]).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            fake = network(low).clamp(0, 1)
        shown = (fake[0] * 255).round().byte().permute(1, 2, 0).numpy()
        real = torch.from_numpy(high).permute(2, 0, 1)[None].double() / 255
        figures = metrics.measure(shown, high, border=4)
        rows.append(
            {
                "PSNR": figures["psnr_y"],
                "SSIM": figures["ssim_y"],
                "PSNR_RGB": figures["psnr_rgb"],
                "SSIM_RGB": figures["ssim_rgb"],
                "content_loss": (fake - real).abs().mean().item(),
                "perceptual_loss": perceptual_distance(load_file(vgg11_weights), fake.double(), real).item(),
            }
        )
    record = logged(whole, "validation", stage)[6]
    for name in rows[0]:
        tolerance = 1e-5 if name.endswith("loss") else 1e-3  # a pixel may be rounded the other way
        assert record[name] == pytest.approx(np.mean([row[name] for row in rows]), rel=tolerance), name


def test_the_panels_show_the_validation_images(whole: Path, photos: Path) -> None:
    high = np.array(Image.open(photos / "val" / "1.png"))
    for stage in STAGES:
        (path,) = whole.glob(f"logs/*/{stage}.png")
        panel = np.array(Image.open(path))
        assert panel.shape[0] >= 2 * 32
        assert panel.shape[1] >= 4 * 36
        windows = np.lib.stride_tricks.sliding_window_view(panel, high.shape)
        assert (windows == high).all(axis=(-1, -2, -3)).sum() == 1  # the HR column has it once


def test_tensorboard_gets_the_figures_of_the_log_under_their_tags(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = {
        "pretraining": ["content_loss", "learning_rate", "gradient_norm", "gradient_norm_peak", "skipped_steps"],
        "training": [
            *("content_loss", "perceptual_loss", "g_adversarial_loss", "g_total_loss", "d_adversarial_loss"),
            *("g_learning_rate", "d_learning_rate", "g_gradient_norm", "d_gradient_norm"),
            *("g_gradient_norm_peak", "d_gradient_norm_peak", "real_logits", "fake_logits", "skipped_steps"),
        ],
    }
    for stage, label in (("pretraining", "PSNR-driven"), ("training", "GAN-based")):
        (folder,) = whole.glob(f"logs/*/tensorboard/{stage}")
        events = EventAccumulator(str(folder)).Reload()
        expected = {f"train/{label}/{name}" for name in [*losses[stage], *RATES[1:]]}
        figures = ("content_loss", "perceptual_loss", "PSNR", "SSIM", "PSNR_RGB", "SSIM_RGB")
        expected |= {f"validation/{label}/{name}" for name in figures}
        assert set(events.Tags()["scalars"]) == expected
        for tag in expected:
            split, _, name = tag.split("/")
            if name not in RATES:
                values = {event.step: event.value for event in events.Scalars(tag)}
                written = {step: record[name] for step, record in logged(whole, split, stage).items()}
                assert values == pytest.approx(written, rel=1e-6), tag
        (image_tag,) = events.Tags()["images"]
        assert image_tag.startswith(f"validation/{label}/")
        assert [event.step for event in events.Images(image_tag)] == [2, 4, 6]


def test_two_stages_in_two_runs_are_two_stages_in_one(
    whole: Path, tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(99)  # nothing but the configuration's seed matters
    np.random.seed(99)  # noqa: NPY002
    assert run(tiny(), tmp_path / "first", stage="pretraining") is True
    first = contents(tmp_path / "first")
    assert first.keys() == {"PSNR_x4", "PSNR_x4_best_model", "PSNR_x4_checkpoint"}
    (model,) = (tmp_path / "first").glob("*_RRDB_PSNR_x4.pth")
    assert run(tiny(), tmp_path / "second", load_checkpoint=model) is True
    assert f"{model}: RRDBNet ×4 8/4/1, PSNR stage; it starts the GAN stage\n" in capsys.readouterr().out
    second, reference = contents(tmp_path / "second"), contents(whole)
    assert second.keys() == {"ESRGAN_x4", "ESRGAN_x4_best_model", "ESRGAN_x4_checkpoint"}
    for files in (second, reference):  # in one run this one also knows the best of the stage before
        files["ESRGAN_x4_checkpoint"]["checkpoint"].pop("best")
    for name, content in (first | second).items():
        assert not differing(learnt(content), learnt(reference[name])), name
    assert records(tmp_path / "first") + records(tmp_path / "second") == records(whole)


def test_the_gan_stage_alone_warns_of_its_random_start(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny(), tmp_path, stage="training", max_steps=1) is True
    assert contents(tmp_path).keys() == {"ESRGAN_x4", "ESRGAN_x4_best_model", "ESRGAN_x4_checkpoint"}
    assert {record["stage"] for record in records(tmp_path)} == {"training"}
    assert "random weights: the GAN stage needs a pretrained generator (-l)" in capsys.readouterr().out


def test_another_seed_gives_another_result(whole: Path, tiny: Make, tmp_path: Path) -> None:
    run(tiny(seed=4), tmp_path, stage="pretraining", max_steps=1)
    ours, theirs = (load_first_losses(folder) for folder in (tmp_path, whole))
    assert ours != theirs
    one, other = (make_networks(Config.model_validate(tiny(seed=seed)), CPU) for seed in (3, 4))
    for network, another in zip(one, other, strict=True):
        assert len(differing(dict(network.state_dict()), dict(another.state_dict()))) > 3


def test_random_numbers_of_the_caller_are_left_alone(tiny: Make) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make_networks(Config.model_validate(tiny()), CPU)
    assert torch.equal(torch.rand(3), expected)


def load_first_losses(out_dir: Path) -> float:
    value: float = logged(out_dir, "train", "pretraining")[1]["content_loss"]
    return value


def test_both_stages_end_after_max_steps(tiny: Make, tmp_path: Path) -> None:
    assert run(tiny(), tmp_path, max_steps=3) is True
    assert {
        name: content["checkpoint"]["step"] for name, content in contents(tmp_path).items() if "checkpoint" in name
    } == {
        "PSNR_x4_checkpoint": 3,
        "ESRGAN_x4_checkpoint": 3,
    }
    for stage in STAGES:  # the last step is reported and validated, wherever it falls
        assert list(logged(tmp_path, "train", stage)) == [1, 2, 3]
        assert list(logged(tmp_path, "validation", stage)) == [2, 3]


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(4, 2, 2), (5, 2, 2), (3, 4, 1)])
def test_an_epoch_is_as_many_steps_as_the_images_fill(
    tiny: Make, write_images: Callable[..., Path], tmp_path: Path, count: int, batch_size: int, steps: int
) -> None:
    folder = write_images(tmp_path / "images", count)
    stage = {"num_steps": None, "num_epoch": 3, "train_datasets": [str(folder)]}
    run(
        tiny(batch_size=batch_size, pretraining=stage, cache_dir=str(tmp_path / "cache")), tmp_path, stage="pretraining"
    )
    assert max(logged(tmp_path, "train", "pretraining")) == 3 * steps


def test_a_dry_run_tries_both_stages_and_writes_nothing(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tiny(cache_dir=str(tmp_path / "cache"), logging={"tensorboard": True, "wandb": "offline"})
    assert run(config, tmp_path / "out", dry_run=True) is True
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert all(path.parent == tmp_path / "cache" for path in written)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    out = capsys.readouterr().out
    time = r"a step in \d+\.\d\d s, a validation in \d+:\d\d, the whole stage in about \d+:\d\d"
    assert re.search(rf"pretraining: {time}; [\d.]+ [MG]B of memory; content_loss \d+\.\d+\n", out)
    assert re.search(rf"training: {time}; .* g_total_loss .*d_adversarial_loss .*perceptual_loss", out)
    assert "4 training and 2 validation images, 6 steps of 2 patches, 2 an epoch" in out
    assert "14,083 parameters" in out
    assert "dry run: everything is in place" in out


def test_ctrl_c_ends_a_dry_run(tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with after_step("pretraining", 1, press_ctrl_c):
        assert run(tiny(), tmp_path / "out", dry_run=True) is False
    assert "everything is in place" not in capsys.readouterr().out


def test_a_dry_run_leaves_a_run_that_it_would_continue_as_it_is(whole: Path, tiny: Make, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert run(tiny(logging={"tensorboard": True}), tmp_path / "out", resume=True, dry_run=True) is True
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def checkpoint_steps(config: dict[str, Any], out_dir: Path, **options: Any) -> list[int]:
    """Run the pretraining; give the steps whose checkpoints were written."""
    steps = []

    def save(path: Path, content: dict[str, Any], keep: int) -> None:
        save_checkpoint(path, content, keep)
        steps.append(content["checkpoint"]["step"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        run(config, out_dir, stage="pretraining", **options)
    return steps


def test_checkpoints_and_models_are_written_at_their_intervals(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(validation_interval=100)
    assert checkpoint_steps(config, tmp_path / "two", checkpoint_interval=2, store_model_interval=2) == [4, 6]
    names = ("", "_best_model", "_checkpoint", "_e2")
    assert contents(tmp_path / "two").keys() == {f"PSNR_x4{suffix}" for suffix in names}
    # Unless told otherwise each epoch has one, though not within a minute.
    assert checkpoint_steps(config, tmp_path / "minute") == [6]
    monkeypatch.setattr(loop, "CHECKPOINT_PAUSE_S", -1)
    assert checkpoint_steps(config, tmp_path / "each") == [2, 4, 6]
    assert contents(tmp_path / "each").keys() == {"PSNR_x4", "PSNR_x4_best_model", "PSNR_x4_checkpoint"}


def test_no_model_is_written_without_a_checkpoint_to_go_on_from(
    tiny: Make, scripted: Callable[..., None], tmp_path: Path
) -> None:
    kept = checkpoint_steps(tiny(validation_interval=100), tmp_path / "kept", store_model_interval=2)
    assert kept == [4, 6]
    scripted(*psnr(10, 20, 15))
    assert checkpoint_steps(tiny(), tmp_path / "best") == [2, 4, 6]


def test_two_runs_of_one_second_have_different_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20261121-120000")
    first = RunFiles.new(tmp_path, 4)
    assert first.model("training") == tmp_path / "20261121-120000_RRDB_ESRGAN_x4.pth"
    save_file(first.checkpoint("pretraining"), {"params": {}})
    second = RunFiles.new(tmp_path, 4)
    assert second.run != first.run
    second.logs.mkdir(parents=True)  # it has begun, and no file of weights is there yet
    assert len({first.run, second.run, RunFiles.new(tmp_path, 4).run}) == 3


def test_a_run_can_be_named_but_not_after_another(tiny: Make, tmp_path: Path) -> None:
    config = tiny(generator={"num_basic_blocks": 1})
    run(config, tmp_path, stage="pretraining", max_steps=1, run_name="mine")
    assert {path.name.partition("_RRDB_")[0] for path in tmp_path.glob("*.pth")} == {"mine"}
    before = records(tmp_path)
    with pytest.raises(WeightsError, match="has a run named mine; choose another name, or continue it"):
        run(config, tmp_path, stage="pretraining", max_steps=1, run_name="mine")
    assert records(tmp_path) == before


def test_a_named_run_that_died_before_its_first_checkpoint_begins_again(
    whole: Path, tiny: Make, tmp_path: Path
) -> None:
    options = {"stage": "pretraining", "run_name": "mine"}
    with after_step("pretraining", 1, kill), pytest.raises(Killed):
        run(tiny(), tmp_path, **options)
    with after_step("pretraining", 2, kill), pytest.raises(Killed):
        run(tiny(), tmp_path, resume=True, **options)
    assert len(records(tmp_path)) == 1
    with pytest.raises(WeightsError, match="has a run named mine"):
        run(tiny(), tmp_path, **options)
    assert run(tiny(), tmp_path, resume=True, **options) is True
    assert records(tmp_path) == [record for record in records(whole) if record["stage"] == "pretraining"]
    assert {path.name.partition("_RRDB_")[0] for path in tmp_path.glob("*.pth")} == {"mine"}


def test_a_named_run_is_resumed_by_its_name(tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        with after_step("pretraining", 2, press_ctrl_c):
            assert run(tiny(), tmp_path, stage="pretraining", run_name=name) is False
    capsys.readouterr()
    run(tiny(), tmp_path, stage="pretraining", run_name="first", resume=True, max_steps=3)
    assert f"{tmp_path}/first_RRDB_PSNR_x4_checkpoint.pth: checkpoint of pretraining" in capsys.readouterr().out
    assert (tmp_path / "first_RRDB_PSNR_x4.pth").exists()
    assert not (tmp_path / "second_RRDB_PSNR_x4.pth").exists()


# Interrupted, killed, resumed


@pytest.mark.parametrize(
    ("stage", "done", "expected"),
    [
        ("pretraining", 1, ("pretraining", 1)),
        ("pretraining", 4, ("pretraining", 4)),
        ("pretraining", 6, ("pretraining", 6)),  # but for its last validation
        ("training", 3, ("training", 3)),
        ("training", 5, ("training", 5)),
    ],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    whole: Path,
    tiny: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    done: int,
    expected: tuple[str, int],
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    number = signal.SIGTERM if done % 2 == 0 else signal.SIGINT
    with after_step(stage, done, lambda: signal.raise_signal(number)):
        assert run(tiny(), tmp_path) is False
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    kind = {"pretraining": "PSNR", "training": "ESRGAN"}[expected[0]]
    (checkpoint,) = tmp_path.glob(f"*_{kind}_x4_checkpoint.pth")
    out = capsys.readouterr().out
    assert f"stopped after step {expected[1]} of {expected[0]}; checkpoint {checkpoint} written" in out
    assert not list(tmp_path.glob(f"*_{kind}_x4.pth"))

    assert run(tiny(), tmp_path, resume=True) is True
    out = capsys.readouterr().out
    assert f"{checkpoint}: checkpoint of {expected[0]} at step {expected[1]}; continuing there" in out
    assert "configuration has changed" not in out
    files, reference = contents(tmp_path), contents(whole)
    assert files.keys() == {name for name in reference if not re.search(r"_e\d$", name)}
    for name, content in files.items():
        assert not differing(learnt(content), learnt(reference[name])), name
    assert records(tmp_path) == records(whole)


def test_a_second_interrupt_ends_the_run_at_once(tiny: Make, tmp_path: Path) -> None:
    def press_twice() -> None:
        press_ctrl_c()
        press_ctrl_c()

    with after_step("pretraining", 2, press_twice), pytest.raises(KeyboardInterrupt):
        run(tiny(), tmp_path)
    assert not list(tmp_path.glob("*.pth"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_finished_run_is_not_run_again(whole: Path, tiny: Make, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    assert run(tiny(), tmp_path / "out", resume=True) is True
    files, reference = contents(tmp_path / "out"), contents(whole)
    assert files.keys() == reference.keys()
    assert all(not differing(learnt(content), learnt(reference[name])) for name, content in files.items())
    assert records(tmp_path / "out") == records(whole)


@contextmanager
def killed_in_step(stage: str, done: int) -> Iterator[None]:
    with after_step(stage, done, kill):
        yield


@pytest.mark.parametrize(
    "killing",
    [
        (killed_after_checkpoint, "pretraining", 2),
        (killed_in_step, "pretraining", 4),
        (killed_after_checkpoint, "pretraining", 6),
        (killed_in_step, "training", 2),  # before the first checkpoint of its stage
        (killed_after_checkpoint, "training", 4),
        (killed_in_step, "training", 6),
    ],
)
def test_a_killed_run_goes_on_from_its_last_checkpoint(whole: Path, tiny: Make, tmp_path: Path, killing: Any) -> None:
    how, stage, step = killing
    with how(stage, step), pytest.raises(Killed):
        run(tiny(), tmp_path, checkpoint_interval=1)
    (log,) = tmp_path.glob("logs/*/log.jsonl")
    with log.open("a", encoding="utf-8") as file:
        file.write('{"time": 1795260532.836, "split": "train", "sta')  # the power went while it was writing
    assert run(tiny(), tmp_path, resume=True, checkpoint_interval=1) is True
    files, reference = contents(tmp_path), contents(whole)
    for name, content in files.items():
        assert not differing(learnt(content), learnt(reference[name])), name
    assert files.keys() == {name for name in reference if not re.search(r"_e\d$", name)}
    assert records(tmp_path) == records(whole)


def test_no_model_of_an_epoch_is_lost_to_a_kill(whole: Path, tiny: Make, tmp_path: Path) -> None:
    options = {"stage": "pretraining", "checkpoint_interval": 1, "store_model_interval": 1}
    with killed_after_checkpoint("pretraining", 2), pytest.raises(Killed):
        run(tiny(), tmp_path, **options)
    run(tiny(), tmp_path, resume=True, **options)
    files, reference = contents(tmp_path), contents(whole)
    assert files.keys() == {name for name in reference if name.startswith("PSNR")}
    assert all(not differing(files[name]["params"], reference[name]["params"]) for name in files)


def test_tensorboard_shows_each_step_once_after_a_kill(tiny: Make, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny(logging={"tensorboard": True, "num_images": 1})
    with killed_in_step("training", 2), pytest.raises(Killed):
        run(config, tmp_path, checkpoint_interval=2, max_steps=4)
    for path in tmp_path.glob("*_PSNR_x4_checkpoint.pth"):  # as if the kill had come with step 3 of the pretraining
        content = load_file(path)
        assert content["checkpoint"]["step"] == 4
    assert run(config, tmp_path, resume=True, checkpoint_interval=2, max_steps=4) is True
    for stage, label in (("pretraining", "PSNR-driven"), ("training", "GAN-based")):
        (folder,) = tmp_path.glob(f"logs/*/tensorboard/{stage}")
        events = EventAccumulator(str(folder)).Reload()
        assert [event.step for event in events.Scalars(f"train/{label}/content_loss")] == [1, 2, 3, 4]


def test_tensorboard_drops_the_steps_that_are_done_again(tiny: Make, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny(logging={"tensorboard": True, "num_images": 1})
    with killed_in_step("pretraining", 4), pytest.raises(Killed):
        run(config, tmp_path, checkpoint_interval=1, stage="pretraining")
    assert run(config, tmp_path, resume=True, stage="pretraining") is True
    (folder,) = tmp_path.glob("logs/*/tensorboard/pretraining")
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("train/PSNR-driven/content_loss")] == [1, 2, 3, 4, 5, 6]


def test_a_logged_loss_is_the_mean_of_all_steps_since_the_last_line(tiny: Make, tmp_path: Path) -> None:
    losses: list[float] = []
    original = PixelStage.step

    def step(self: Any, low: Tensor, high: Tensor, current: int, *target: Tensor) -> dict[str, Tensor]:
        result = original(self, low, high, current, *target)
        losses.append(result["content_loss"].item())
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixelStage, "step", step)
        # A validation between two lines takes nothing from the second one.
        run(tiny(validation_interval=3, logging={"interval": 4}), tmp_path, stage="pretraining")
    lines = logged(tmp_path, "train", "pretraining")
    assert {step: record["content_loss"] for step, record in lines.items()} == {
        4: pytest.approx(np.mean(losses[:4]), rel=1e-6),
        6: pytest.approx(np.mean(losses[4:]), rel=1e-6),
    }


def test_a_run_that_stopped_between_two_log_lines_writes_the_same_lines(tiny: Make, tmp_path: Path) -> None:
    config = tiny(validation_interval=6, logging={"interval": 3})
    run(config, tmp_path / "whole", stage="pretraining")
    with after_step("pretraining", 2, press_ctrl_c):
        assert run(config, tmp_path / "stopped", stage="pretraining") is False
    run(config, tmp_path / "stopped", stage="pretraining", resume=True)
    assert records(tmp_path / "stopped") == records(tmp_path / "whole")


def test_the_newest_checkpoint_of_a_configuration_or_of_a_named_run_is_resumed(tmp_path: Path) -> None:
    def checkpoint(name: str, config_name: str, seconds: int) -> Path:
        path = tmp_path / f"{name}_x4_checkpoint.pth"
        save_file(path, {"params": {}, "checkpoint": {"config_name": config_name}})
        os.utime(path, (1_700_000_000 + seconds,) * 2)
        return path

    oldest = checkpoint("z_RRDB_PSNR", "mine", 0)
    newest = checkpoint("a_RRDB_ESRGAN", "mine", 20)
    checkpoint("m_RRDB_PSNR", "mine", 10)
    others = checkpoint("zz_RRDB_PSNR", "other", 30)
    save_file(tmp_path / "zzz_RRDB_PSNR_x4.pth", {"params": {}})
    (tmp_path / "zzz_RRDB_PSNR_x4_checkpoint.pth").write_bytes(b"another program's")

    def newest_of(*arguments: Any) -> Path | None:
        return newest_checkpoint(tmp_path, *arguments)[0]

    assert newest_of("mine", None, "all") == newest
    assert newest_of("mine", None, "pretraining") == tmp_path / "m_RRDB_PSNR_x4_checkpoint.pth"
    assert newest_of("other", None, "training") == others
    assert newest_of("renamed", "z", "all") == oldest
    assert newest_of("nobody's", None, "all") is None
    assert newest_of("mine", "nobody's", "all") is None
    assert newest_checkpoint(tmp_path / "nowhere", "mine", None, "all") == (None, [])


def test_copied_checkpoints_of_a_run_are_ordered_by_their_names(tmp_path: Path) -> None:
    names = ["ESRGAN_x4_checkpoint", "ESRGAN_x4_checkpoint_1", "PSNR_x4_checkpoint", "PSNR_x4_checkpoint_1"]
    paths = [tmp_path / f"mine_RRDB_{name}.pth" for name in names]
    for i, path in enumerate(paths):
        save_file(path, {"params": {}, "checkpoint": {"config_name": "mine"}})
        os.utime(path, (1_700_000_000 + i,) * 2)  # the oldest is the last to be copied
    for path in paths:
        assert newest_checkpoint(tmp_path, "mine", None, "all")[0] == path
        path.unlink()


def test_with_nothing_to_resume_a_new_run_begins(
    tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny(), tmp_path, stage="pretraining", resume=True, max_steps=1) is True
    out = capsys.readouterr().out
    assert f"no checkpoint of tiny in {tmp_path}; a new run begins" in out
    assert "starting pretraining" in out


def test_a_run_begun_from_a_file_resumes_from_its_checkpoint_or_begins_from_the_file_again(
    whole: Path, tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = whole.glob("*_RRDB_PSNR_x4.pth")
    options = {"load_checkpoint": model, "resume": True}
    with after_step("training", 2, press_ctrl_c):
        assert run(tiny(), tmp_path, **options) is False
    assert f"{model}: " in capsys.readouterr().out
    assert run(tiny(), tmp_path, **options) is True
    assert "checkpoint of training at step 2; continuing there" in capsys.readouterr().out


@pytest.fixture
def stopped(tiny: Make, tmp_path: Path) -> Callable[[str], Path]:
    """Give the function that stops a run after the second step of a stage and gives its folder."""

    def stop(stage: str) -> Path:
        with after_step(stage, 2, press_ctrl_c):
            assert run(tiny(), tmp_path / "stopped", stage=stage) is False
        return tmp_path / "stopped"

    return stop


def test_a_changed_configuration_is_told_and_taken(
    tiny: Make, stopped: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out_dir = stopped("pretraining")
    changed = tiny(pretraining={"lr": 5e-4, "num_steps": 3}, batch_size=1)
    assert run(changed, out_dir, stage="pretraining", resume=True) is True
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "the configuration has changed" in line]
    for change in ("batch_size: 2 → 1", "pretraining.lr: 0.001 → 0.0005", "pretraining.num_steps: 6 → 3"):
        assert change in line
    assert line.count("→") == 3
    assert logged(out_dir, "train", "pretraining")[3]["learning_rate"] == 5e-4
    assert contents(out_dir)["PSNR_x4"]["hparams"] == Config.model_validate(changed).as_dict()


def test_changed_betas_are_taken_too(tiny: Make, stopped: Callable[[str], Path]) -> None:
    out_dir = stopped("pretraining")
    run(tiny(pretraining={"betas": [0.5, 0.75]}), out_dir, stage="pretraining", resume=True, max_steps=3)
    optimizer = contents(out_dir)["PSNR_x4_checkpoint"]["checkpoint"]["stage"]["generator_updater"]["optimizer"]
    assert tuple(optimizer["param_groups"][0]["betas"]) == (0.5, 0.75)


@pytest.mark.parametrize("changes", [{"vgg_blk_ch": [4, 4, 8]}, {"type": "unet", "num_features": 4}])
def test_another_discriminator_than_the_checkpoints_is_refused(
    tiny: Make, stopped: Callable[[str], Path], changes: dict[str, Any]
) -> None:
    out_dir = stopped("training")
    before = {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()}
    with pytest.raises(WeightsError, match="discriminator"):
        run(tiny(discriminator=changes), out_dir, stage="training", resume=True)
    assert {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()} == before


# The best model


@pytest.fixture
def scripted(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the function that replaces the figures of the validations, one dictionary for each in turn."""

    def script(*figures: dict[str, float]) -> None:
        rest = iter(figures)
        common = {"content_loss": 1.0, "SSIM": 0.5, "PSNR_RGB": 20.0, "SSIM_RGB": 0.5}
        monkeypatch.setattr(loop, "validate", lambda *_, **__: common | next(rest))

    return script


def best_epoch(out_dir: Path) -> int | None:
    """Find the epoch whose model is the best model."""
    files = contents(out_dir)
    best = next((content for name, content in files.items() if name.endswith("_best_model")), None)
    if best is None:
        return None
    (epoch,) = [
        int(name[-1])
        for name, content in files.items()
        if re.search(r"_e\d$", name) and not differing(content["params"], best["params"])
    ]
    return epoch


def psnr(*values: float) -> list[dict[str, float]]:
    return [{"PSNR": value, "perceptual_loss": 1.0 - i / 10} for i, value in enumerate(values)]


GAN_FIGURES = [{"PSNR": 30.0, "perceptual_loss": 3.0}, {"PSNR": 10.0, "perceptual_loss": 1.0}]
GAN_FIGURES += [{"PSNR": 40.0, "perceptual_loss": 2.0}]


@pytest.mark.parametrize(
    ("stage", "figures", "warm_up", "best"),
    [
        ("pretraining", psnr(10, 30, 20), 0, 2),
        ("pretraining", psnr(30, 10, 20), 0, 1),
        ("pretraining", psnr(30, 20, 10), 1, 2),
        ("pretraining", psnr(30, 20, 10), 2, 3),
        ("pretraining", psnr(30, 20, 10), 3, None),
        ("training", GAN_FIGURES, 0, 2),  # the nearest in perception, whatever its PSNR
        ("training", GAN_FIGURES, 2, 3),
        ("training", [{"PSNR": value} for value in (30.0, 20.0, 10.0)], 0, 3),  # nothing to judge by: the newest
    ],
)
def test_the_best_model_is_chosen_as_its_stage_aims(
    tiny: Make,
    scripted: Callable[..., None],
    tmp_path: Path,
    stage: str,
    figures: list[dict[str, float]],
    warm_up: int,
    best: int | None,
) -> None:
    scripted(*figures)
    run(tiny(), tmp_path, stage=stage, store_model_interval=1, best_checkpoint_warmup=warm_up)
    assert best_epoch(tmp_path) == best


@pytest.mark.parametrize(("stage", "figures"), [("pretraining", psnr(10, 30, 20)), ("training", GAN_FIGURES)])
def test_a_resumed_run_remembers_the_best(
    tiny: Make, scripted: Callable[..., None], tmp_path: Path, stage: str, figures: list[dict[str, float]]
) -> None:
    scripted(*figures)
    with after_step(stage, 5, press_ctrl_c):
        assert run(tiny(), tmp_path, stage=stage, store_model_interval=1) is False
    scripted(figures[-1])
    assert run(tiny(), tmp_path, stage=stage, resume=True, store_model_interval=1) is True
    assert best_epoch(tmp_path) == 2


def test_each_stage_has_its_own_best(tiny: Make, scripted: Callable[..., None], tmp_path: Path) -> None:
    scripted(*psnr(50.0), {"PSNR": 10.0, "perceptual_loss": 9.0})
    run(tiny(validation_interval=100), tmp_path, max_steps=1)
    assert {"PSNR_x4_best_model", "ESRGAN_x4_best_model"} <= contents(tmp_path).keys()


def test_a_network_that_broke_is_never_the_best(tiny: Make, scripted: Callable[..., None], tmp_path: Path) -> None:
    scripted(*({"PSNR": 10.0, "perceptual_loss": value} for value in (1.0, math.nan, 2.0)))
    run(tiny(), tmp_path, stage="training", store_model_interval=1)
    assert best_epoch(tmp_path) == 1


# Kinds of training


@contextmanager
def watching_forwards() -> Iterator[dict[str, set[torch.dtype]]]:
    """Note the dtypes that networks give and losses have."""
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


def test_autocast_computes_in_bfloat16_and_keeps_losses_and_weights_in_float32(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("esrgan.training.setup.has_native_bfloat16", lambda _: False)
    with watching_forwards() as seen:
        assert run(tiny(), tmp_path, autocast=True, max_steps=2) is True
    assert seen == {
        "RRDBNet": {torch.bfloat16},
        "VGGDiscriminator": {torch.bfloat16},
        "losses": {torch.float32},
    }
    for content in contents(tmp_path).values():
        assert all(value.dtype == torch.float32 for value in content["params"].values())
    assert "-a: this cpu emulates bfloat16; expect it to be slower than without -a" in capsys.readouterr().out
    assert all(math.isfinite(record["content_loss"]) for record in records(tmp_path))


def test_without_autocast_everything_is_float32(tiny: Make, tmp_path: Path) -> None:
    with watching_forwards() as seen:
        run(tiny(), tmp_path, max_steps=1, dry_run=True)
    assert set().union(*seen.values()) == {torch.float32}


def test_float16_on_a_cpu_is_refused(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="float16 is for GPUs; on a CPU use bfloat16"):
        run(tiny(autocast_dtype="float16"), tmp_path / "out", autocast=True)
    assert not (tmp_path / "out").exists()


def test_whole_images_can_be_trained_on(tiny: Make, write_images: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 2, (44, 40))
    write_images(folder / "more", 1, (34, 51))
    shutil.move(folder / "more" / "0.png", folder / "2.png")
    stage = {"cr_patch_size": None, "train_datasets": [str(folder)]}
    config = tiny(batch_size=1, pretraining=stage, training=stage, cache_dir=str(tmp_path / "cache"))
    shapes = set()
    original = PixelStage.step

    def step(self: Any, low: Tensor, high: Tensor, current: int, *target: Tensor) -> dict[str, Tensor]:
        shapes.add((*low.shape[-2:], *high.shape[-2:]))
        return original(self, low, high, current, *target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixelStage, "step", step)
        assert run(config, tmp_path / "out", max_steps=3) is True
    assert shapes == {(10, 11, 40, 44), (12, 8, 48, 32)}  # cut to multiples of the scale, never turned on their side
    with pytest.raises(EsrganError) as caught:
        run(config | {"batch_size": 2}, tmp_path / "other")
    assert [problem.place for problem in caught.value.problems] == [
        "pretraining.cr_patch_size",
        "training.cr_patch_size",
    ]
    assert "batch_size to 1" in str(caught.value)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_images_go_through_both_stages(
    tiny: Make, write_images: Callable[..., Path], tmp_path: Path, channels: int
) -> None:
    folders = {split: write_images(tmp_path / split, 2, channels=channels) for split in ("train", "val")}
    stage = {f"{split}_datasets": [str(folder)] for split, folder in folders.items()}
    config = tiny(img_channels=channels, pretraining=stage, training=stage, cache_dir=str(tmp_path / "cache"))
    assert run(config, tmp_path / "out", max_steps=1) is True
    for path in (tmp_path / "out").glob("*_x4.pth"):
        assert load_generator(path).architecture.img_channels == channels
    for stage_name in STAGES:
        record = logged(tmp_path / "out", "validation", stage_name)[1]
        assert all(math.isfinite(value) for key, value in record.items() if key not in ("split", "stage"))
        assert len(list((tmp_path / "out").glob(f"logs/*/{stage_name}.png"))) == 1


def test_a_folded_network_and_the_unet_discriminator_train_and_resume(tiny: Make, tmp_path: Path) -> None:
    config = tiny(
        scale_factor=2, generator={"pixel_unshuffle": True}, discriminator={"type": "unet", "num_features": 4}
    )
    assert run(config, tmp_path / "whole", max_steps=4) is True
    with after_step("training", 3, press_ctrl_c):
        assert run(config, tmp_path / "stopped", max_steps=4) is False
    assert run(config, tmp_path / "stopped", max_steps=4, resume=True) is True
    files, reference = contents(tmp_path / "stopped"), contents(tmp_path / "whole")
    assert files.keys() == reference.keys() >= {"PSNR_x2", "ESRGAN_x2"}
    assert all(not differing(learnt(files[name]), learnt(reference[name])) for name in files)
    (path,) = (tmp_path / "whole").glob("*_ESRGAN_x2.pth")
    architecture = load_generator(path).architecture
    assert (architecture.scale_factor, architecture.pixel_unshuffle) == (2, True)


def test_panels_can_be_switched_off(tiny: Make, tmp_path: Path) -> None:
    assert run(tiny(logging={"num_images": 0}), tmp_path, stage="pretraining", max_steps=1) is True
    assert list(logged(tmp_path, "validation", "pretraining")) == [1]


def test_loader_processes_change_nothing(whole: Path, tiny: Make, tmp_path: Path) -> None:
    run(tiny(num_workers=1), tmp_path, stage="pretraining")
    assert not differing(contents(tmp_path)["PSNR_x4"]["params"], contents(whole)["PSNR_x4"]["params"])


def test_ctrl_c_leaves_the_loader_processes_at_work(photos: Path) -> None:
    pairs = prepare(
        find_pairs([str(photos / "train")], "train", 4, photos),
        scale=4,
        channels=3,
        min_size=(32, 32),
        cache_dir=photos / "cache",
    )
    patches = PatchDataset(pairs, scale=4, patch_size=(32, 32), seed=0)
    loader = batches(patches, batch_size=2, first_step=0, last_step=12, num_workers=1)
    next(loader)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGINT)  # a terminal sends it to every process of the command
    assert len(list(loader)) == 11


# What a run starts from


@pytest.fixture(scope="module")
def given(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give one file of each kind that -l can be given."""
    folder = tmp_path_factory.mktemp("given")
    names = {
        "PSNR model": "PSNR_x4",
        "GAN model": "ESRGAN_x4",
        "PSNR checkpoint": "PSNR_x4_checkpoint",
        "GAN checkpoint": "ESRGAN_x4_checkpoint",
    }
    files = {kind: next(whole.glob(f"*_RRDB_{name}.pth")) for kind, name in names.items()}
    state = load_file(files["GAN model"])["params"]
    save_file(folder / "bare.pth", state)
    save_file(folder / "basicsr.pth", {"params_ema": state})
    save_file(
        folder / "blend.pth", blend(*(load_generator(files[k]) for k in ("PSNR model", "GAN model")), 0.5).content()
    )
    return files | {"foreign": folder / "bare.pth", "BasicSR": folder / "basicsr.pth", "blend": folder / "blend.pth"}


GENERATOR = r"RRDBNet ×4 8/4/1"
BOTH, FIRST, SECOND = ("pretraining", "training"), ("pretraining",), ("training",)
CONTINUES = "at step 6; continuing there"


@pytest.mark.parametrize(
    ("kind", "stage", "stages", "understood"),
    [
        ("PSNR model", "all", SECOND, f"{GENERATOR}, PSNR stage; it starts the GAN stage"),
        ("PSNR model", "training", SECOND, f"{GENERATOR}, PSNR stage; it starts the GAN stage"),
        ("PSNR model", "pretraining", FIRST, f"{GENERATOR}, PSNR stage; it starts the PSNR stage"),
        ("GAN model", "training", SECOND, f"{GENERATOR}, GAN stage; it is fine-tuned in the GAN stage"),
        ("GAN model", "pretraining", FIRST, f"{GENERATOR}, GAN stage; it starts the PSNR stage"),
        ("blend", "training", SECOND, f"{GENERATOR}, interpolated, α = 0.5; it is fine-tuned in the GAN stage"),
        ("foreign", "all", SECOND, f"{GENERATOR}, BasicSR names, of unknown training; it starts the GAN stage"),
        ("foreign", "training", SECOND, f"{GENERATOR}, BasicSR names, of unknown training; it starts the GAN stage"),
        ("foreign", "pretraining", FIRST, f"{GENERATOR}, BasicSR names, of unknown training; it starts the PSNR stage"),
        ("BasicSR", "all", SECOND, f"{GENERATOR}, BasicSR names, of unknown training; it starts the GAN stage"),
        ("PSNR checkpoint", "all", BOTH, f"checkpoint of pretraining {CONTINUES}"),
        ("PSNR checkpoint", "pretraining", FIRST, f"checkpoint of pretraining {CONTINUES}"),
        (
            "PSNR checkpoint",
            "training",
            SECOND,
            "checkpoint of pretraining at step 6; its averaged generator starts the GAN stage",
        ),
        ("GAN checkpoint", "all", SECOND, f"checkpoint of training {CONTINUES}"),
        ("GAN checkpoint", "training", SECOND, f"checkpoint of training {CONTINUES}"),
    ],
)
def test_what_a_file_starts_is_said(
    given: dict[str, Path], kind: str, stage: str, stages: tuple[str, ...], understood: str
) -> None:
    path, content = given[kind], load_file(given[kind])
    start = start_from(path, stage)
    assert start.stages == stages
    assert start.understood == f"{path}: {understood}"
    assert "\n" not in start.understood
    if understood.endswith(CONTINUES):
        assert start.resume["step"] == 6
        assert not differing(start.generator, content["params"])
        assert not differing(start.resume["params_ema"], content["params_ema"])
    else:
        assert start.resume is None
        state = content.get("params_ema", content.get("params", content))
        assert not differing(start.generator, state)


@pytest.mark.parametrize(
    ("kind", "stage", "message"),
    [
        ("GAN model", "all", "its training is over; to fine-tune it add --stage training"),
        ("GAN checkpoint", "pretraining", "a checkpoint of training does not resume pretraining; use --stage training"),
    ],
)
def test_what_a_file_cannot_start_is_refused(
    given: dict[str, Path], tiny: Make, tmp_path: Path, kind: str, stage: str, message: str
) -> None:
    with pytest.raises(WeightsError, match=re.escape(message)) as caught:
        run(tiny(), tmp_path / "out", stage=stage, load_checkpoint=given[kind])
    assert str(given[kind]) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("stage", "stages"), [("all", BOTH), ("pretraining", FIRST), ("training", SECOND)])
def test_without_a_file_the_stages_asked_for_run(stage: str, stages: tuple[str, ...]) -> None:
    start = fresh_start(stage)
    assert start.stages == stages
    assert start.generator is start.resume is None
    assert start.understood.startswith(f"starting {stages[0]}")


def test_a_gan_model_is_fine_tuned_when_asked(given: dict[str, Path], tiny: Make, tmp_path: Path) -> None:
    frozen = {"g_lr": 1e-12, "d_lr": 1e-12}
    assert run(tiny(training=frozen), tmp_path, stage="training", load_checkpoint=given["GAN model"], max_steps=1)
    trained, before = contents(tmp_path)["ESRGAN_x4"]["params"], load_file(given["GAN model"])["params"]
    torch.testing.assert_close(trained, before, rtol=0, atol=1e-9)


def test_a_checkpoint_given_by_name_is_continued_under_the_name_of_its_run(
    tiny: Make, stopped: Callable[[str], Path]
) -> None:
    out_dir = stopped("pretraining")
    (checkpoint,) = out_dir.glob("*_checkpoint.pth")
    assert run(tiny(), out_dir, stage="pretraining", load_checkpoint=checkpoint, max_steps=3) is True
    assert contents(out_dir).keys() == {"PSNR_x4", "PSNR_x4_best_model", "PSNR_x4_checkpoint"}  # of one run
    assert len(records(out_dir)) == 5


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({"generator": {"rrdb_channels": 16}}, "RRDBNet ×4 16/4/1"),
        ({"generator": {"num_basic_blocks": 2}}, "RRDBNet ×4 8/4/2"),
        ({"scale_factor": 2}, "RRDBNet ×2 8/4/1"),
    ],
)
def test_a_file_of_another_architecture_is_refused(
    given: dict[str, Path], tiny: Make, tmp_path: Path, changes: dict[str, Any], ours: str
) -> None:
    for kind in ("PSNR model", "PSNR checkpoint"):
        with pytest.raises(WeightsError) as caught:
            run(tiny(**changes), tmp_path / "out", load_checkpoint=given[kind])
        message = str(caught.value)
        assert str(given[kind]) in message
        assert f"expected the generator of the configuration, {ours}, got RRDBNet ×4 8/4/1" in message
        assert "\n" not in message
        assert not (tmp_path / "out").exists()


def test_another_residual_scaling_than_the_files_does_not_pass_unnoticed(
    given: dict[str, Path], tiny: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ""
    try:
        run(tiny(generator={"residual_scaling": 0.5}), tmp_path, load_checkpoint=given["PSNR model"], dry_run=True)
    except WeightsError as error:
        said = str(error)
    assert "residual_scaling" in said + capsys.readouterr().out


def test_a_checkpoint_without_its_parts_is_an_error(given: dict[str, Path], tmp_path: Path) -> None:
    content = load_file(given["PSNR checkpoint"])
    for key in ("run", "step", "best", "stage"):
        lacking = {name: value for name, value in content["checkpoint"].items() if name != key}
        save_file(tmp_path / "lacking.pth", content | {"checkpoint": lacking})
        with pytest.raises(WeightsError, match=r"lacking\.pth: an incomplete checkpoint"):
            start_from(tmp_path / "lacking.pth", "all")


def test_a_file_that_is_not_there_is_an_error(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.pth: there is no such file"):
        run(tiny(), tmp_path / "out", load_checkpoint=tmp_path / "nothing.pth")


# What must be in place


def test_every_problem_is_reported_at_once_before_anything_is_written(
    tiny: Make, write_images: Callable[..., Path], no_vgg_weights: Path, tmp_path: Path
) -> None:
    pair = {"hr": str(write_images(tmp_path / "hr", 2)), "lr": str(write_images(tmp_path / "lr", 1, (11, 10)))}
    small = str(write_images(tmp_path / "small", 1, (18, 18)))
    config = tiny(
        cache_dir=str(tmp_path / "cache"),
        pretraining={"train_datasets": ["nowhere", "set5"], "val_datasets": [small]},
        training={"train_datasets": [pair, "nowhere"], "val_datasets": ["elsewhere"]},
        perceptual_loss={"weights": None},
        data_root=str(tmp_path / "data"),
    )
    with pytest.raises(EsrganError) as caught:
        run(config, tmp_path / "out")
    text = str(caught.value)
    assert len(caught.value.problems) == 6
    assert text.count("dataset nowhere") == 1  # both stages miss it
    for part in ("dataset set5", "small/0.png: expected at least", "hr/1.png", "dataset elsewhere"):
        assert part in text, part
    assert "the ImageNet weights of vgg11" in text
    assert "perceptual_loss.weights" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("stage", "count"), [("pretraining", 1), ("training", 2), ("all", 3)])
def test_only_the_stages_that_run_need_their_data(tiny: Make, tmp_path: Path, stage: str, count: int) -> None:
    config = tiny(pretraining={"train_datasets": ["a"]}, training={"train_datasets": ["b"], "val_datasets": ["c"]})
    with pytest.raises(EsrganError) as caught:
        run(config, tmp_path / "out", stage=stage)
    assert len(caught.value.problems) == count


def test_a_gan_run_without_vgg_weights_stops(tiny: Make, no_vgg_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(EsrganError) as caught:
        run(tiny(perceptual_loss={"weights": None}), tmp_path / "out")
    (problem,) = caught.value.problems
    for part in ("ImageNet weights of vgg11", "no network in tests", str(no_vgg_weights), "perceptual_loss.weights"):
        assert part in str(problem), part
    assert not (tmp_path / "out").exists()


def test_vgg_weights_that_the_configuration_names_are_never_optional(tiny: Make, tmp_path: Path) -> None:
    config = tiny(perceptual_loss={"weights": "no.pth", "optional": True}, pretraining={"val_datasets": ["nowhere"]})
    with pytest.raises(EsrganError) as caught:
        run(config, tmp_path / "out")
    assert [str(problem).split(":")[0] for problem in caught.value.problems] == ["dataset nowhere", "no.pth"]


@pytest.mark.parametrize(
    ("stage", "optional", "line"),
    [("all", True, "the perceptual term is left out"), ("pretraining", False, "no perceptual_loss in validation")],
)
def test_where_the_perceptual_loss_can_be_missed_a_line_says_so(
    tiny: Make,
    no_vgg_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    optional: bool,
    line: str,
) -> None:
    config = tiny(perceptual_loss={"weights": None, "optional": optional})
    assert run(config, tmp_path, stage=stage, max_steps=1) is True
    out = capsys.readouterr().out
    assert out.count("no ImageNet weights of vgg11 on this machine") == 1
    assert line in out
    assert not any("perceptual_loss" in record for record in records(tmp_path))
    if stage == "all":
        record, gan = logged(tmp_path, "train", "training")[1], Config().training
        parts = gan.g_adversarial_loss_scaling * record["g_adversarial_loss"]
        parts += gan.g_content_loss_scaling * record["content_loss"]
        assert record["g_total_loss"] == pytest.approx(parts, rel=1e-5)


def test_problems_of_images_have_a_place_and_a_remedy(
    tiny: Make, write_images: Callable[..., Path], tmp_path: Path
) -> None:
    grey = write_images(tmp_path / "grey", 1, channels=1)
    (tmp_path / "empty").mkdir()
    config = tiny(
        cache_dir=str(tmp_path / "cache"),
        pretraining={"train_datasets": [str(grey)], "val_datasets": [str(tmp_path / "empty")]},
    )
    with pytest.raises(EsrganError) as caught:
        run(config, tmp_path / "out", stage="pretraining")
    assert not isinstance(caught.value, DatasetError) or caught.value.problems
    places = [problem.place for problem in caught.value.problems if isinstance(problem, Problem)]
    assert places == [str(grey / "0.png"), f"dataset {tmp_path / 'empty'}"]
    assert all(problem.remedy for problem in caught.value.problems)


def test_the_size_that_is_asked_for_is_one_that_suffices(
    tiny: Make, write_images: Callable[..., Path], tmp_path: Path
) -> None:
    def refusal(side: int) -> str:
        folder = write_images(tmp_path / str(side), 1, (side, side))
        config = tiny(cache_dir=str(tmp_path / "cache"), pretraining={"val_datasets": [str(folder)]})
        try:
            run(config, tmp_path / "out", stage="pretraining", dry_run=True)
        except EsrganError as error:
            return str(error)
        return ""

    message = refusal(19)  # whose edge of 3 px is cut off, to a multiple of the scale
    asked = re.search(r"at least (\d+)×\1 px", message)
    assert asked, message
    assert refusal(int(asked[1])) == ""
