"""The options of the GAN stage beyond the paper, compared with reference calculations."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from esrgan.config.schema import Training
from esrgan.losses import ADVERSARIAL_LOSSES, ContentLoss, artifact_loss, consistency_loss, pattern_loss
from esrgan.models import RRDBNet, VGGDiscriminator
from esrgan.training import distributed
from esrgan.training.ema import ExponentialMovingAverage
from esrgan.training.pause import DiscriminatorPause
from esrgan.training.recovery import Recovery, capture_state, restore_state
from esrgan.training.stages import AdversarialStage, Autocast
from esrgan.training.updater import Updater, step_schedule
from tests.helpers.runs import find_differences
from tests.helpers.stages import random_batch, small_generator

pytestmark = pytest.mark.usefixtures("foreground_signals")

CPU = torch.device("cpu")


def make_networks() -> tuple[RRDBNet, VGGDiscriminator]:
    torch.manual_seed(2)
    return small_generator(), VGGDiscriminator(3, (4, 4, 8, 8), (10,)).double()


def make_stage(
    generator: RRDBNet,
    discriminator: VGGDiscriminator,
    rate: float = 1e-3,
    adversarial_scaling: float = 0.3,
    **options: object,
) -> AdversarialStage:
    updaters = (Updater(each, step_schedule(rate, 100, 1.0), (0.9, 0.99)) for each in (generator, discriminator))
    return AdversarialStage(
        generator, discriminator, ContentLoss(), None, *updaters, adversarial_scaling, 0.7, Autocast(CPU), **options
    )  # type: ignore[arg-type]


def norm_of_gradient(loss: Tensor, network: torch.nn.Module) -> float:
    gradients = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in gradients]).norm().item()


def test_the_stage_trains_both_networks_with_the_objective() -> None:
    generator, discriminator = make_networks()
    stage = make_stage(*copy.deepcopy((generator, discriminator)), adversarial_loss=ADVERSARIAL_LOSSES["lsgan"])
    low, high = random_batch(0)
    losses = stage.step(low, high, 0)
    fake = generator(low)
    real_logits, fake_logits = discriminator(high), discriminator(fake)
    adversarial = F.mse_loss(fake_logits, torch.ones_like(fake_logits))
    of_real, of_fake = ((logits - label).square().mean() for logits, label in ((real_logits, 1), (fake_logits, 0)))
    total = 0.3 * adversarial + 0.7 * (fake - high).abs().mean()
    assert losses["g_adversarial_loss"].item() == pytest.approx(adversarial.item(), rel=1e-9)
    assert losses["d_adversarial_loss"].item() == pytest.approx((of_real + of_fake).item() / 2, rel=1e-9)
    assert losses["g_total_loss"].item() == pytest.approx(total.item(), rel=1e-9)
    assert losses["g_gradient_norm"].item() == pytest.approx(norm_of_gradient(total, generator), rel=1e-9)
    d_norm = norm_of_gradient((of_real + of_fake) / 2, discriminator)
    assert losses["d_gradient_norm"].item() == pytest.approx(d_norm, rel=1e-9)


def test_a_stage_without_an_adversarial_loss_leaves_out_the_discriminator() -> None:
    generator, discriminator = make_networks()
    before = copy.deepcopy(discriminator.state_dict())
    stage = make_stage(copy.deepcopy(generator), discriminator, adversarial_scaling=0.0)
    low, high = random_batch(0)
    discriminator.register_forward_pre_hook(lambda *_: pytest.fail("the discriminator was computed"))
    losses = stage.step(low, high, 0)
    total = 0.7 * (generator(low) - high).abs().mean()
    assert losses.keys() == {"content_loss", "g_total_loss", "g_gradient_norm"}
    assert losses["g_total_loss"].item() == pytest.approx(total.item(), rel=1e-9)
    assert losses["g_gradient_norm"].item() == pytest.approx(norm_of_gradient(total, generator), rel=1e-9)
    assert stage.learning_rates(0).keys() == {"g_learning_rate"}
    assert not find_differences(before, discriminator.state_dict())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_stage_compares_with_the_averaged_generator(checkpointing: bool) -> None:
    generator, discriminator = make_networks()
    average = copy.deepcopy(generator)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(0.9)
    average.requires_grad_(False)
    networks = copy.deepcopy((generator, discriminator))
    networks[0].activation_checkpointing = checkpointing
    stage = make_stage(*networks, artifact_scaling=2.0, average=average)
    low, high = random_batch(0)
    target = random_batch(1)[1]
    losses = stage.step(low, high, 0, target)
    fake = generator(low)
    artifact = artifact_loss(fake, average(low), target)
    adversarial = ADVERSARIAL_LOSSES["ragan"].generator(discriminator(high), discriminator(fake))
    total = 0.3 * adversarial + 0.7 * (fake - target).abs().mean() + 2.0 * artifact
    assert losses["artifact_loss"].item() == pytest.approx(artifact.item(), rel=1e-9)
    assert losses["g_total_loss"].item() == pytest.approx(total.item(), rel=1e-9)
    assert losses["g_gradient_norm"].item() == pytest.approx(norm_of_gradient(total, generator), rel=1e-9)


def test_the_artifact_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    losses = []
    for parts in (1, 2):
        generator, discriminator = make_networks()
        average = copy.deepcopy(generator).requires_grad_(False)
        stage = make_stage(generator, discriminator, artifact_scaling=1.0, average=average, accumulation=parts)
        losses.append(stage.step(*random_batch(0), 0)["artifact_loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "loss"), [("consistency", consistency_loss), ("pattern", functools.partial(pattern_loss, period=4))]
)
def test_the_stage_compares_mean_colours_with_the_target(name: str, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    generator, discriminator = make_networks()
    stage = make_stage(*copy.deepcopy((generator, discriminator)), **{f"{name}_scaling": 2.0})
    low, high = random_batch(0)
    fake = generator(low)
    target = fake.detach() + random_batch(1)[1] - 0.5  # so that mean differences have both signs
    losses = stage.step(low, high, 0, target)
    expected = loss(fake, target)
    adversarial = ADVERSARIAL_LOSSES["ragan"].generator(discriminator(high), discriminator(fake))
    total = 0.3 * adversarial + 0.7 * (fake - target).abs().mean() + 2.0 * expected
    assert losses[f"{name}_loss"].item() == pytest.approx(expected.item(), rel=1e-9)
    assert losses["g_total_loss"].item() == pytest.approx(total.item(), rel=1e-9)
    assert losses["g_gradient_norm"].item() == pytest.approx(norm_of_gradient(total, generator), rel=1e-9)


def test_optional_losses_are_absent_by_default() -> None:
    losses = make_stage(*make_networks()).step(*random_batch(0), 0)
    assert not {"artifact_loss", "consistency_loss"} & losses.keys()


def test_the_weight_of_the_adversarial_loss_grows_over_the_ramp() -> None:
    stage = make_stage(*make_networks(), adversarial_ramp_steps=3)
    for step in range(5):
        losses = stage.step(*random_batch(step), step)
        weighted = losses["g_total_loss"] - 0.7 * losses["content_loss"]
        expected = min(step + 1, 3) / 3 * 0.3
        assert (weighted / losses["g_adversarial_loss"]).item() == pytest.approx(expected, rel=1e-9)


def test_a_pause_lasts_while_the_smoothed_loss_is_below_the_bound() -> None:
    losses = [0.5, 0.3, math.nan, *[0.1] * 30, *[0.6] * 30]
    pause, smoothed, decisions = DiscriminatorPause(0.25, "ragan", CPU), losses[0], []
    for loss in losses:
        if not math.isnan(loss):
            smoothed = 0.95 * smoothed + 0.05 * loss
        decisions.append(smoothed < 0.25)
        assert bool(pause.is_due(torch.tensor(loss))) == decisions[-1]
    assert [decisions[0], decisions[32], decisions[-1]] == [False, True, False]


def test_all_processes_pause_by_the_mean_of_their_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "all_reduce_mean", lambda values: (values + 0.1) / 2)  # of a second process
    assert DiscriminatorPause(0.25, "ragan", CPU).is_due(torch.tensor(0.3))
    assert not DiscriminatorPause(0.25, "ragan", CPU).is_due(torch.tensor(0.5))


def test_only_the_generator_learns_during_a_pause() -> None:
    generator, discriminator = make_networks()
    stage = make_stage(generator, discriminator, pause=DiscriminatorPause(0.5, "ragan", CPU))
    assert stage.pause is not None
    stage.step(*random_batch(0), 0)
    before = copy.deepcopy((stage.state_dict()["discriminator_updater"], dict(discriminator.named_parameters())))
    g_before = copy.deepcopy(generator.state_dict())
    stage.pause.smoothed_loss = torch.tensor(0.1)
    losses = stage.step(*random_batch(1), 1)
    assert losses["d_paused"].item() == 1
    assert losses["d_gradient_norm"].item() > 0
    after = stage.state_dict()["discriminator_updater"], dict(discriminator.named_parameters())
    assert not [place for place in find_differences(before, after) if not place.endswith("/lr")]
    assert find_differences(g_before, generator.state_dict())
    stage.pause.smoothed_loss = torch.tensor(0.9)
    assert stage.step(*random_batch(2), 2)["d_paused"].item() == 0
    assert find_differences(before[1], dict(discriminator.named_parameters()))


def test_the_pause_is_part_of_the_state() -> None:
    one, other = (make_stage(*make_networks(), pause=DiscriminatorPause(0.5, "ragan", CPU)) for _ in range(2))
    one.step(*random_batch(0), 0)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert not find_differences(one.state_dict(), other.state_dict())
    without = make_stage(*make_networks())
    other.load_state_dict(copy.deepcopy(without.state_dict()))  # as when a resumed run sets the option
    without.load_state_dict(one.state_dict())
    assert "pause" not in without.state_dict()


def test_a_new_discriminator_is_part_of_the_good_state_and_has_the_reduced_rate() -> None:
    without, (generator, discriminator) = make_stage(*make_networks(), adversarial_scaling=0), make_networks()
    average = ExponentialMovingAverage(without.generator, 0.9)
    before = Recovery(without, average, 0)
    without.g_updater.learning_rate_factor = 0.5
    stage = make_stage(generator, discriminator)
    restore_state(capture_state(without, average), stage, ExponentialMovingAverage(generator, 0.9))
    assert stage.d_updater.learning_rate_factor == 0.5
    recovery = Recovery(stage, ExponentialMovingAverage(generator, 0.9), 3)
    recovery.load_state_dict(before.state_dict(3))
    expected = copy.deepcopy(discriminator.state_dict())
    stage.step(*random_batch(0), 3)
    assert find_differences(expected, discriminator.state_dict())
    recovery.roll_back()
    assert not find_differences(expected, discriminator.state_dict())


def test_the_pause_begins_anew_with_another_objective() -> None:
    pause, other = DiscriminatorPause(0.5, "lsgan", CPU), DiscriminatorPause(0.5, "hinge", CPU)
    pause.is_due(torch.tensor(0.1))
    other.load_state_dict(pause.state_dict())
    assert not other.is_due(torch.tensor(0.6))
    other.load_state_dict({"smoothed_loss": torch.tensor(0.1)})  # of an earlier version
    assert other.is_due(torch.tensor(0.6))


def test_every_objective_has_its_name_in_the_configuration() -> None:
    assert ADVERSARIAL_LOSSES.keys() == set(get_args(Training.model_fields["gan_objective"].annotation))
