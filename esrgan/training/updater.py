"""The optimiser step of one network, with learning-rate schedules, gradient clipping and loss scaling."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from esrgan.training import distributed

Schedule = Callable[[int], float]  # maps a step, counted from 0, to its learning rate


def step_schedule(learning_rate: float, step_size: int, gamma: float) -> Schedule:
    """Return a schedule that multiplies the learning rate by gamma every ``step_size`` steps, like StepLR."""
    return lambda step: learning_rate * gamma ** (step // step_size)


def multi_step_schedule(learning_rate: float, milestones: Sequence[int], gamma: float) -> Schedule:
    """Return a schedule that multiplies the learning rate by gamma at each milestone, like MultiStepLR."""
    return lambda step: learning_rate * gamma ** bisect_right(milestones, step)


def cosine_schedule(learning_rate: float, total_steps: int) -> Schedule:
    """Return a schedule that falls to 0 over ``total_steps`` as half a period of a cosine, like CosineAnnealingLR."""
    return lambda step: learning_rate * (1 + math.cos(math.pi * min(step / total_steps, 1))) / 2


def ramp(step: int, steps: int) -> float:
    """Return a factor that grows linearly to 1 over the first ``steps`` steps: 1 / steps, 2 / steps, …, 1, 1, …."""
    return min(1.0, (step + 1) / steps) if steps else 1.0


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """Return the schedule with learning rates that grow linearly over the first ``steps`` steps."""
    return lambda step: ramp(step, steps) * schedule(step)


class Updater:
    """Adam, or AdamW, with a learning-rate schedule that is a function of the step, so it has no state.

    A step whose loss or gradient is not finite changes nothing in any process. The optimiser reads this from a flag on
    the device, so the CPU does not wait for the result, except on MPS.

    Args:
        network: Network to optimise.
        schedule: Learning rate by step.
        betas: Decay rates of Adam's moment estimates.
        scale_loss: Scale the loss to avoid underflow, for float16 autocast.
        gradient_clip: Maximum norm of the gradient; None disables clipping.
        weight_decay: Share of each weight, times the learning rate, that AdamW subtracts at each step; 0 is Adam.

    Attributes:
        learning_rate_factor: Multiplier of the scheduled learning rate; less than 1 after a rollback.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        betas: tuple[float, float],
        scale_loss: bool = False,
        gradient_clip: float | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(network.parameters())
        self.schedule = schedule
        self.gradient_clip = gradient_clip
        self.learning_rate_factor = 1.0
        kind = torch.optim.AdamW if weight_decay else torch.optim.Adam
        self.optimizer = kind(self.parameters, schedule(0), betas, weight_decay=weight_decay, fused=True)
        self.device = self.parameters[0].device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=scale_loss)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.learning_rate_factor * self.schedule(step)

    def update(self, loss: Tensor, step: int, pause: Tensor | None = None) -> Tensor:
        """Average the gradients over the processes, update the weights, and clear the gradients.

        Args:
            loss: The loss that the gradients belong to (a scalar); only checked for being finite.
            step: Counted from 0.
            pause: Whether to leave weights and optimiser as they are, on the device and equal in all processes.

        Returns:
            Norm of the gradient before clipping (a scalar); not finite if the step was skipped.
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        gradients[0] += loss.detach().to(gradients[0].dtype) * 0  # NaN if the loss is NaN or infinite
        distributed.average_gradients(gradients)  # before the check, so all processes skip the same steps
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm(gradients)
        if self.gradient_clip is not None:
            torch._foreach_mul_(gradients, (self.gradient_clip / norm).clamp(max=1))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        is_skipped = ~norm.isfinite() if pause is None else ~norm.isfinite() | pause
        if self.device.type != "mps":
            self.optimizer.found_inf = is_skipped.float()  # type: ignore[attr-defined]
            self.optimizer.step()  # not by the scaler, which would replace the flag
        elif not is_skipped:  # there the fused optimiser ignores the flag (pull request 186360 of PyTorch)
            self.optimizer.step()
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return the state of optimiser and loss scaler, for a resumed run."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rate_factor": self.learning_rate_factor,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of ``state_dict``; betas and weight decay are kept from the configuration."""
        group = self.optimizer.param_groups[0]
        configured = {name: value for name, value in group.items() if name not in ("params", "lr")}
        self.optimizer.load_state_dict(state["optimizer"])
        self.optimizer.param_groups[0].update(configured)  # they may have changed since the checkpoint
        if state["scaler"]:  # empty if loss scaling was disabled
            self.scaler.load_state_dict(state["scaler"])
        self.learning_rate_factor = state.get("rate_factor", 1.0)
