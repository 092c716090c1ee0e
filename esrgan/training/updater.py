"""One network's optimiser, from a loss to changed weights."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from esrgan.training import distributed

Schedule = Callable[[int], float]  # step, counted from 0, to learning rate


def step_schedule(learning_rate: float, step_size: int, gamma: float) -> Schedule:
    """Multiply the rate by gamma after every so many steps, as StepLR does."""
    return lambda step: learning_rate * gamma ** (step // step_size)


def multi_step_schedule(learning_rate: float, milestones: Sequence[int], gamma: float) -> Schedule:
    """Multiply the rate by gamma at each milestone, as MultiStepLR does."""
    return lambda step: learning_rate * gamma ** bisect_right(milestones, step)


class Updater:
    """Adam with a schedule that is a function of the step, so that it needs no state of its own.

    A step whose loss or gradient is not finite changes nothing, in no process, and nobody waits to learn of it: the
    optimiser looks at a flag on the device.

    Args:
        network: What to optimise.
        schedule: Learning rate by step.
        betas: Of Adam.
        scale_loss: Scale the loss against underflow, for float16 autocast.
        gradient_clip: Longer gradients are shortened to this length; None leaves them.

    Attributes:
        learning_rate_factor: Of the scheduled rate; less than 1 after a rollback.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        betas: tuple[float, float],
        scale_loss: bool = False,
        gradient_clip: float | None = None,
    ) -> None:
        self.parameters = list(network.parameters())
        self.schedule = schedule
        self.gradient_clip = gradient_clip
        self.learning_rate_factor = 1.0
        self.optimizer = torch.optim.Adam(self.parameters, lr=schedule(0), betas=betas, fused=True)
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=scale_loss)

    def learning_rate(self, step: int) -> float:
        """Give the rate of a step, counted from 0."""
        return self.learning_rate_factor * self.schedule(step)

    def update(self, loss: Tensor, step: int) -> Tensor:
        """Change the weights by one step along their gradients, averaged over the processes, and clear these.

        Args:
            loss: What the gradients are of (a scalar); only whether it is finite counts here.
            step: Counted from 0.

        Returns:
            The length of the gradient before it was shortened, not finite if the step was skipped: a scalar.
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        gradients[0] += loss.detach().to(gradients[0].dtype) * 0  # no number, if the loss is none or infinite
        distributed.average_gradients(gradients)  # so all skip the same steps
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm(gradients)
        if self.gradient_clip is not None:
            torch._foreach_mul_(gradients, (self.gradient_clip / norm).clamp(max=1))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        if not self.scaler.is_enabled():  # which would find out by itself
            self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed run needs."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rate_factor": self.learning_rate_factor,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        betas = self.optimizer.param_groups[0]["betas"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.optimizer.param_groups[0]["betas"] = betas  # those of the configuration, should it have changed
        if state["scaler"]:  # empty if it was trained without one
            self.scaler.load_state_dict(state["scaler"])
        self.learning_rate_factor = state.get("rate_factor", 1.0)
