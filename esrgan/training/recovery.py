"""What to do when training breaks: back to where it was well, with a smaller rate, and in the end a diagnosis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from esrgan.training import distributed
from esrgan.training.ema import ExponentialMovingAverage
from esrgan.training.stages import Stage

MAX_BAD_STEPS = 50  # in a row; float16's first loss scale, 2^16, skips no more than 16 until it is 1
MAX_ROLLBACKS = 3  # in a row, without a good state between
LEARNING_RATE_FACTOR = 0.5  # of each rollback
MAX_CONTENT_LOSS = 100.0  # of the content; pictures differ by 1 at most, and a random network's output by some more


def capture_state(stage: Stage, ema: ExponentialMovingAverage) -> dict[str, Any]:
    """Give all that training changes: what is in it goes on changing."""
    return {
        "params_ema": ema.average.state_dict(),
        "params": stage.generator.state_dict(),
        "stage": stage.state_dict(),
    }


def restore_state(state: dict[str, Any], stage: Stage, ema: ExponentialMovingAverage) -> None:
    """Put a stage back to where ``capture_state`` was called; the state becomes a part of it."""
    stage.load_state_dict(state["stage"])
    stage.generator.load_state_dict(state["params"])
    ema.average.load_state_dict(state["params_ema"])


class Recovery:
    """Watches a stage for bad steps, on the device and without waiting for it, and keeps its last good state.

    A step is bad if it was skipped, or if its content loss is absurd: a network that diverged in finite numbers is as
    lost as one of NaN.

    Args:
        stage: What to watch.
        ema: Of its generator.
        step: Steps done; what the stage is now is its first good state.
    """

    def __init__(self, stage: Stage, ema: ExponentialMovingAverage, step: int) -> None:
        self.stage = stage
        self.ema = ema
        device = next(stage.generator.parameters()).device
        self.bad_steps = torch.zeros((), dtype=torch.int64, device=device)  # in a row, up to now
        self.first_bad = torch.zeros_like(self.bad_steps)  # of them, counted from 0
        self.names: list[str] = []
        self.values = torch.zeros(0, device=device)  # of the losses then
        self.snapshot(step)

    def add(self, losses: dict[str, Tensor], step: int) -> None:
        """Take in the losses and gradient norms of a step, counted from 0."""
        values = torch.stack([value.float() for value in losses.values()])
        is_bad = ~values.isfinite().all() | (losses["content_loss"] > MAX_CONTENT_LOSS)
        self.bad_steps = torch.where(is_bad, self.bad_steps + 1, 0)
        is_later = self.bad_steps > 1
        self.first_bad = torch.where(is_later, self.first_bad, step)
        self.values = torch.where(is_later, self.values if self.names == list(losses) else 0, values)
        self.names = list(losses)

    def needs_rollback(self) -> bool:
        """Tell whether there have been too many bad steps in a row; this waits for the device."""
        return distributed.any_rank(self.bad_steps.item() >= MAX_BAD_STEPS)

    def is_healthy(self, low: Tensor, high: Tensor) -> bool:
        """Tell whether the last step was good, and what it made of the generator as well; arguments as below."""
        return self.has_sane_output(low, high) and not distributed.any_rank(bool(self.bad_steps > 0))

    @torch.no_grad()
    def has_sane_output(self, low: Tensor, high: Tensor) -> bool:
        """Tell whether the generator is worth anything.

        Args:
            low: Any LR (B, C, h, w) in [0, 1]; of parts of a batch the first one is enough.
            high: HR (B, C, H, W) of it.
        """
        low, high = (each.chunk(self.stage.accumulation)[0] for each in (low, high))
        with self.stage.autocast():
            fake = self.stage.generator(low)
        is_sane = self.stage.content_loss(fake, high) <= MAX_CONTENT_LOSS
        return not distributed.any_rank(not is_sane)

    def snapshot(self, step: int) -> None:
        """Take the stage as it is for good; steps done."""
        self.good = {"step": step, "state": _copy_to_cpu(capture_state(self.stage, self.ema))}
        self.rollbacks = 0

    def roll_back(self) -> None:
        """Go back to the last good state, with a smaller rate."""
        factors = [updater.learning_rate_factor * LEARNING_RATE_FACTOR for updater in self.stage.updaters]
        restore_state(_copy_to_cpu(self.good["state"]), self.stage, self.ema)
        for updater, factor in zip(self.stage.updaters, factors, strict=True):
            updater.learning_rate_factor = factor
        self.rollbacks += 1
        self.bad_steps.fill_(1)  # not well until a step shows it; until then the first bad one remains the first

    def diagnose(self) -> tuple[str, int]:
        """Say which losses were bad when it began, in any process, and in which step, counted from 0."""
        own = torch.tensor([self.bad_steps, self.first_bad, *self.values.tolist()], dtype=torch.float64)
        rows = [row for row in distributed.all_gather(own).tolist() if row[0] > 0]
        bad: dict[str, float] = {}
        for _, _, *values in rows:
            for name, value in zip(self.names, values, strict=True):
                if not abs(value) < float("inf") or (name == "content_loss" and value > MAX_CONTENT_LOSS):
                    bad.setdefault(name, value)
        return ", ".join(f"{name} {value:.3g}" for name, value in bad.items()), int(min(row[1] for row in rows))

    def state_dict(self, step: int) -> dict[str, Any]:
        """Give what a resumed run needs; the good state only if it is not the one after this step."""
        return {
            "rollbacks": self.rollbacks,
            "bad_steps": self.bad_steps,
            "first_bad": self.first_bad,
            "names": self.names,
            "values": self.values,
            "good": self.good if self.good["step"] != step else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, the stage having been put back to there."""
        device = self.bad_steps.device
        self.rollbacks, self.names = state["rollbacks"], list(state["names"])
        for name in ("bad_steps", "first_bad", "values"):
            setattr(self, name, state[name].to(device))
        self.good = state["good"] or self.good


def _copy_to_cpu(value: Any) -> Any:
    """Copy nested dictionaries and lists, tensors into the computer's memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy_to_cpu(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copy_to_cpu(each) for each in value)
    return value
