"""One network's optimiser, from a loss to changed weights."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from esrgan.training import distributed

Schedule = Callable[[int], float]  # step, counted from 0, to learning rate


def step_schedule(learning_rate: float, every: int, gamma: float) -> Schedule:
    """Multiply the rate by gamma after every so many steps, as StepLR does."""
    return lambda step: learning_rate * gamma ** (step // every)


def multi_step_schedule(learning_rate: float, milestones: Sequence[int], gamma: float) -> Schedule:
    """Multiply the rate by gamma at each milestone, as MultiStepLR does."""
    return lambda step: learning_rate * gamma ** bisect_right(milestones, step)


class Updater:
    """Adam with a schedule that is a function of the step, so that it needs no state of its own.

    Args:
        network: What to optimise.
        schedule: Learning rate by step.
        betas: Of Adam.
        scale_loss: Scale the loss against underflow, for float16 autocast.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, betas: tuple[float, float], scale_loss: bool = False
    ) -> None:
        self.parameters = list(network.parameters())
        self.schedule = schedule
        device = self.parameters[0].device
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=schedule(0), betas=betas, fused=device.type in ("cpu", "cuda")
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=scale_loss)

    def update(self, loss: Tensor, step: int) -> None:
        """Change the weights by one step against the loss's gradient, averaged over the processes."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        distributed.average_gradients(self.parameters)  # before the scaler looks: all skip the same overflow
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(step)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed run needs."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        betas = self.optimizer.param_groups[0]["betas"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.optimizer.param_groups[0]["betas"] = betas  # those of the configuration, should it have changed
        if state["scaler"]:  # empty if it was trained without one
            self.scaler.load_state_dict(state["scaler"])
