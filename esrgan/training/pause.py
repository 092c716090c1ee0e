"""When the discriminator pauses, so that the generator can catch up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from esrgan.training import distributed

SMOOTHING = 0.95  # weight of the earlier losses, so that the mean covers about 20 steps


class DiscriminatorPause:
    """A pause while the discriminator wins, which is while its smoothed loss is below a bound.

    The loss is averaged over the processes, so all of them pause in the same steps. It stays on the device, so the CPU
    does not wait for it.

    Args:
        below: The bound.
        objective: Name of the loss.
        device: Where the losses are.
    """

    def __init__(self, below: float, objective: str, device: torch.device) -> None:
        self.below = below
        self.objective = objective
        self.smoothed_loss = torch.full((), torch.nan, device=device)  # NaN before the first step

    def is_due(self, loss: Tensor) -> Tensor:
        """Add the discriminator's loss of a step, and return whether the step is one of a pause (scalars)."""
        loss = distributed.all_reduce_mean(loss.detach().float().clone())
        smoothed = torch.where(self.smoothed_loss.isnan(), loss, torch.lerp(loss, self.smoothed_loss, SMOOTHING))
        self.smoothed_loss = torch.where(loss.isfinite(), smoothed, self.smoothed_loss)
        return self.smoothed_loss < self.below

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"smoothed_loss": self.smoothed_loss, "objective": self.objective}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of ``state_dict``, unless its losses cannot be compared with those of another objective."""
        if state.get("objective", self.objective) == self.objective:  # earlier versions did not store it
            self.smoothed_loss = state["smoothed_loss"].to(self.smoothed_loss.device)
