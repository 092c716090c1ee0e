"""Learning-rate schedules, gradient clipping and loss scaling."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from esrgan.losses import ContentLoss
from esrgan.training.stages import Autocast, PixelStage
from esrgan.training.updater import Updater, cosine_schedule, multi_step_schedule, ramp, step_schedule, warm_up
from tests.helpers.stages import random_batch, small_generator

pytestmark = pytest.mark.usefixtures("foreground_signals")

CPU = torch.device("cpu")


def test_gradient_clipping_shortens_the_step() -> None:
    free, bound = (
        PixelStage(
            g, ContentLoss(), Updater(g, step_schedule(1e-2, 9, 0.1), (0.0, 0.0), gradient_clip=norm), Autocast(CPU)
        )
        for g, norm in ((small_generator(), None), (small_generator(), 1e-9))
    )
    batch = random_batch(0)
    assert free.step(*batch, 0)["gradient_norm"] == bound.step(*batch, 0)["gradient_norm"] > 1e-9
    start = parameters_to_vector(small_generator().parameters())
    moved = [(parameters_to_vector(each.generator.parameters()) - start).norm() for each in (free, bound)]
    assert 0 < moved[1] < moved[0] / 100  # Adam's epsilon of 1e-8 exceeds the clipped gradient


@pytest.mark.parametrize("every", [1, 3, 7])
def test_step_schedule_matches_pytorch(every: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, every, 0.5)
    ours = step_schedule(2e-4, every, 0.5)
    for step in range(40):
        assert ours(step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12), step
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("milestones", [[], [1], [3, 4, 20], [10, 30]])
def test_multi_step_schedule_matches_pytorch(milestones: list[int]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.3)
    ours = multi_step_schedule(1e-4, milestones, 0.3)
    for step in range(40):
        assert ours(step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12), step
        optimizer.step()
        scheduler.step()


def test_cosine_schedule_matches_pytorch_and_stays_at_its_end() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    ours = cosine_schedule(1e-4, 20)
    for step in range(20):
        assert ours(step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9), step
        optimizer.step()
        scheduler.step()
    assert ours(20) == ours(30) == 0


def step_by_hand(weight: float, gradients: list[float], rate: float, decay: float) -> float:
    """Apply Adam with decoupled weight decay to one weight (arXiv 1711.05101, algorithm 2)."""
    (beta1, beta2), mean, square = (0.8, 0.95), 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        weight -= rate * decay * weight
        weight -= rate * (mean / (1 - beta1**t)) / (math.sqrt(square / (1 - beta2**t)) + 1e-8)
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_weight_decay_is_decoupled_from_the_gradient(decay: float) -> None:
    network = torch.nn.Linear(1, 1, bias=False).double()
    start, gradients = network.weight.item(), [0.3, -2.0, 0.7]
    updater = Updater(network, step_schedule(0.1, 9, 1.0), (0.8, 0.95), weight_decay=decay)
    for step, gradient in enumerate(gradients):
        network.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        updater.update(torch.zeros(()), step)
    assert network.weight.item() == pytest.approx(step_by_hand(start, gradients, 0.1, decay), rel=1e-9)


def test_warm_up_matches_pytorch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
    schedulers = [
        torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 5, total_iters=4),
        torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5),
    ]
    ours = warm_up(step_schedule(1e-4, 3, 0.5), 5)
    for step in range(12):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_without_warm_up_the_learning_rates_are_the_same() -> None:
    plain = multi_step_schedule(1e-4, [3, 4], 0.3)
    assert [warm_up(plain, 0)(step) for step in range(9)] == [plain(step) for step in range(9)]


def test_a_ramp_ends_at_one_and_stays_there() -> None:
    assert [ramp(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [ramp(step, 0) for step in (0, 1, 10**6)] == [1, 1, 1]


def test_losses_are_scaled_only_for_float16() -> None:
    scaled = {dtype: Autocast(CPU, dtype).needs_loss_scaling for dtype in (None, torch.bfloat16, torch.float16)}
    assert scaled == {None: False, torch.bfloat16: False, torch.float16: True}
    updater = Updater(
        small_generator(), step_schedule(1, 1, 1), (0.9, 0.99), Autocast(CPU, torch.bfloat16).needs_loss_scaling
    )
    assert not updater.scaler.is_enabled()
    assert updater.state_dict()["scaler"] == {}


def test_a_checkpoint_without_loss_scaling_resumes_with_it() -> None:
    network, schedule = small_generator(), step_schedule(1e-3, 1, 1.0)
    without = Updater(network, schedule, (0.9, 0.99), scale_loss=False)
    scaling = Updater(network, schedule, (0.9, 0.99), scale_loss=True)
    without.learning_rate_factor = 0.25
    fresh = scaling.scaler.state_dict()
    scaling.load_state_dict(without.state_dict())  # as when resuming with -a on a GPU without bfloat16
    assert scaling.scaler.state_dict() == fresh
    assert scaling.learning_rate_factor == 0.25
    scaling.learning_rate_factor = 0.5
    without.load_state_dict(scaling.state_dict())
    assert without.learning_rate_factor == 0.5


@pytest.mark.parametrize("scale_loss", [False, True])
@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("pause", [None, False, True])
def test_pauses_and_bad_gradients_skip_an_update(scale_loss: bool, bad: bool, pause: bool | None) -> None:
    network = torch.nn.Linear(2, 2)
    updater = Updater(network, step_schedule(1e-3, 1, 1.0), (0.9, 0.99), scale_loss)
    before = parameters_to_vector(network.parameters()).clone()
    scale = updater.scaler.get_scale()
    loss = updater.scaler.scale(network(torch.ones(2)).sum())
    loss.backward()  # type: ignore[no-untyped-call]
    if bad:
        network.bias.grad[0] = math.inf
    flag = None if pause is None else torch.tensor(pause)
    updater.update(torch.zeros(()), 0, *([] if flag is None else [flag]))
    is_same = torch.equal(parameters_to_vector(network.parameters()), before)
    assert is_same == (bad or pause is True)
    # Only gradients that are not finite reduce the scale of the loss.
    assert updater.scaler.get_scale() == (scale / 2 if scale_loss and bad else scale)


@pytest.mark.parametrize("reason", ["nothing", "pause", "gradient"])
@pytest.mark.parametrize("scale_loss", [False, True])
def test_mps_skips_updates_although_its_optimiser_cannot(
    monkeypatch: pytest.MonkeyPatch, scale_loss: bool, reason: str
) -> None:
    network = torch.nn.Linear(2, 2)
    updater = Updater(network, step_schedule(1e-3, 1, 1.0), (0.9, 0.99), scale_loss)
    step = torch.optim.Adam.step

    def step_without_flag(self: torch.optim.Adam) -> None:
        assert not hasattr(self, "found_inf")  # PyTorch 2.11 might refuse it there
        step(self)

    updater.device = torch.device("mps")
    monkeypatch.setattr(updater.optimizer, "step", step_without_flag.__get__(updater.optimizer))
    for number in range(2):
        before = parameters_to_vector(network.parameters()).clone()
        updater.scaler.scale(network(torch.ones(2)).sum()).backward()  # type: ignore[no-untyped-call]
        if reason == "gradient":
            network.weight.grad = torch.full((2, 2), math.nan)
        updater.update(torch.zeros(()), number, torch.tensor(reason == "pause"))
        assert torch.equal(parameters_to_vector(network.parameters()), before) == (reason != "nothing")
