"""Steps of both training stages, compared with reference implementations."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from esrgan.losses import ContentLoss, PerceptualLoss
from esrgan.models import RRDBNet, UNetDiscriminator, VGGDiscriminator, winograd
from esrgan.training.stages import AdversarialStage, Autocast, PixelStage, Stage
from esrgan.training.updater import Updater, multi_step_schedule, step_schedule
from esrgan.weights import load_file
from tests.helpers.runs import find_differences
from tests.helpers.stages import adam, assert_same_weights, perceptual_distance, random_batch, small_generator

pytestmark = pytest.mark.usefixtures("foreground_signals")

CPU = torch.device("cpu")


@pytest.mark.parametrize("loss_f", ["l1", "mse"])
def test_pixel_stage_step_matches_adam_on_the_content_loss(loss_f: str) -> None:
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


@pytest.mark.usefixtures("winograd_on_every_cpu")
@pytest.mark.parametrize("with_gan", [False, True])
def test_losses_are_the_same_by_winograd(vgg11_weights: Path, monkeypatch: pytest.MonkeyPatch, with_gan: bool) -> None:
    monkeypatch.setattr(winograd, "MIN_TILES", 1)
    monkeypatch.setattr(winograd, "MIN_CHANNELS", 1)

    def train(device: str) -> list[dict[str, float]]:
        generator, content_loss = small_generator().float(), ContentLoss("l1")
        g_updater = Updater(generator, step_schedule(1e-3, 2, 0.1), (0.9, 0.99))
        stage: Stage = PixelStage(generator, content_loss, g_updater, Autocast(CPU))
        if with_gan:
            torch.manual_seed(2)
            discriminator = VGGDiscriminator(3, (4, 4, 8, 8), (10,))
            d_updater = Updater(discriminator, step_schedule(1e-3, 2, 0.1), (0.9, 0.99))
            perceptual_loss = PerceptualLoss(load_file(vgg11_weights), {"conv2_1": 1.0}, "vgg11")
            stage = AdversarialStage(
                generator, discriminator, content_loss, perceptual_loss, g_updater, d_updater, 0.1, 0.1, Autocast(CPU)
            )
        losses = []
        for step in range(5):
            low, high = (each.float() for each in random_batch(step))
            with winograd.winograd_convolutions(torch.device(device)):
                values = stage.step(low, high, step)
            losses.append({name: value.item() for name, value in values.items() if name.endswith("loss")})
        return losses

    expected, by_winograd = train("meta"), train("cpu")
    assert by_winograd != expected
    for values, others in zip(by_winograd, expected, strict=True):
        assert values == pytest.approx(others, rel=1e-4)


@pytest.mark.parametrize("discriminator_type", ["vgg", "unet"])
@pytest.mark.parametrize("with_perceptual", [False, True])
@pytest.mark.slow
def test_gan_stage_step_matches_a_reference_implementation(
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
        # A separate target, such as a sharpened image, is not shown to the discriminator.
        target = random_batch(step + 10)[1] if step else high
        losses = stage.step(low, high, step, *([target] if step else []))

        # Both losses come from the same forward passes, because further passes would change the spectral norms.
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


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("stage_name", ["pretraining", "training"])
def test_a_non_finite_step_changes_nothing(stage_name: str, bad: float) -> None:
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
    high[0, 0, 0, 0] = bad  # an infinite pixel makes the loss infinite, but not the gradient of L1
    losses = stage.step(low, high, 1)
    assert not losses["content_loss"].isfinite()
    assert not losses.get("gradient_norm", losses.get("g_gradient_norm")).isfinite()
    assert not find_differences(before, (generator.state_dict(), [each.state_dict() for each in updaters]))
    assert not find_differences(weights, dict(discriminator.named_parameters()))
    stage.step(*random_batch(2), 2)
    assert find_differences(before, (generator.state_dict(), [each.state_dict() for each in updaters]))


def test_a_skipped_step_leaves_batch_norm_statistics_unchanged() -> None:
    generator, discriminator = RRDBNet(4, 3, 8, 4, 1), VGGDiscriminator(3, (4, 4), (10,))
    updaters = (Updater(each, step_schedule(1e-3, 1, 1.0), (0.9, 0.99)) for each in (generator, discriminator))
    stage = AdversarialStage(generator, discriminator, ContentLoss(), None, *updaters, 1.0, 1.0, Autocast(CPU))
    low, high = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)
    before = {name: buffer.clone() for name, buffer in discriminator.named_buffers()}
    stage.step(low, high * math.nan, 0)
    assert before
    assert not find_differences(before, dict(discriminator.named_buffers()))
    stage.step(low, high, 1)
    assert len(find_differences(before, dict(discriminator.named_buffers()))) == len(before)


def test_a_discriminator_may_have_no_batch_norm() -> None:
    generator, discriminator = RRDBNet(4, 3, 8, 4, 1), VGGDiscriminator(3, (4,), (10,))
    assert not list(discriminator.buffers())
    updaters = (Updater(each, step_schedule(1e-3, 1, 1.0), (0.9, 0.99)) for each in (generator, discriminator))
    stage = AdversarialStage(generator, discriminator, ContentLoss(), None, *updaters, 1.0, 1.0, Autocast(CPU))
    before = copy.deepcopy(discriminator.state_dict())
    low, high = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)
    assert stage.step(low, high, 0)["d_gradient_norm"].isfinite()
    assert find_differences(before, discriminator.state_dict())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulation_and_activation_checkpointing_match_the_whole_batch(checkpointing: bool) -> None:
    undivided, divided = (
        PixelStage(g, ContentLoss(), Updater(g, step_schedule(1e-2, 9, 0.1), (0.9, 0.99)), Autocast(CPU), count)
        for g, count in ((small_generator(), 1), (small_generator(), 2))
    )
    divided.generator.activation_checkpointing = checkpointing
    for step in range(3):
        one, other = (stage.step(*random_batch(step), step) for stage in (undivided, divided))
        assert one["content_loss"].item() == pytest.approx(other["content_loss"].item(), rel=1e-12)
        assert one["gradient_norm"].item() == pytest.approx(other["gradient_norm"].item(), rel=1e-9)
    assert_same_weights(undivided.generator, divided.generator)


def test_gan_losses_are_computed_per_part_of_the_batch() -> None:
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
