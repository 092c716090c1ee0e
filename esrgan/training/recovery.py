"""Recovery from divergence: detection of bad steps, rollback to the last good state, and diagnosis."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from esrgan.devices import move_to_cpu
from esrgan.training import distributed
from esrgan.training.ema import ExponentialMovingAverage
from esrgan.training.stages import Stage

MAX_SCALING_STEPS = 16  # skipped ones: in float16, the loss scale starts at 2^16 and may be halved as often
MAX_BAD_STEPS = 50  # consecutive ones cause a rollback
MAX_ROLLBACKS = 3  # consecutive ones, without a good state in between
LEARNING_RATE_FACTOR = 0.5  # applied at each rollback
# Larger content losses are absurd: images differ by at most 1, and the output of a random network by a little more.
MAX_CONTENT_LOSS = 100.0


def capture_state(stage: Stage, ema: ExponentialMovingAverage) -> dict[str, Any]:
    """Return everything that training changes, by reference: later steps modify the tensors in it."""
    return {
        "params_ema": ema.average.state_dict(),
        "params": stage.generator.state_dict(),
        "stage": stage.state_dict(),
    }


def restore_state(state: dict[str, Any], stage: Stage, ema: ExponentialMovingAverage) -> None:
    """Restore a stage to a state of ``capture_state``, whose tensors the stage may then share."""
    stage.load_state_dict(state["stage"])
    stage.generator.load_state_dict(state["params"])
    ema.average.load_state_dict(state["params_ema"])


class Recovery:
    """Monitor of a stage that counts bad steps, without waiting for the device, and keeps the last good state.

    A step is bad if it was skipped, or if its content loss exceeds ``MAX_CONTENT_LOSS``, because a network that
    diverged with finite numbers is as useless as one with NaN. The first good state is the current one, after ``step``
    completed steps.
    """

    def __init__(self, stage: Stage, ema: ExponentialMovingAverage, step: int) -> None:
        self.stage = stage
        self.ema = ema
        device = next(stage.generator.parameters()).device
        self.bad_steps = torch.zeros((), dtype=torch.int64, device=device)  # consecutive, up to the last step
        self.has_bad_losses = self.bad_steps > 0  # in the last step; a gradient may also be bad with good losses
        self.first_bad = torch.zeros_like(self.bad_steps)  # the step at which they began, counted from 0
        self.rolled_back_from: int | None = None  # the first of the bad steps that caused the last rollback
        self.names: list[str] = []
        self.values = torch.zeros(0, device=device)  # losses and gradient norms of that step
        self.snapshot(step)

    def add(self, losses: dict[str, Tensor], step: int) -> None:
        """Record the losses and gradient norms of a step, counted from 0."""
        values = torch.stack([value.float() for value in losses.values()])
        own = torch.stack([value.float() for name, value in losses.items() if not name.endswith("gradient_norm")])
        self.has_bad_losses = ~own.isfinite().all() | (losses["content_loss"] > MAX_CONTENT_LOSS)
        is_bad = self.has_bad_losses | ~values.isfinite().all()
        self.bad_steps = torch.where(is_bad, self.bad_steps + 1, 0)
        is_later = self.bad_steps > 1
        self.first_bad = torch.where(is_later, self.first_bad, step)
        self.values = torch.where(is_later, self.values if self.names == list(losses) else 0, values)
        self.names = list(losses)

    def is_check_due(self, done: int) -> bool:
        """Return whether to check, after ``done`` steps, if a rollback is needed, besides the checks at log lines."""
        return done % MAX_BAD_STEPS == 0

    def needs_rollback(self) -> bool:
        """Return whether there were ``MAX_BAD_STEPS`` bad steps in a row in any process; waits for the device."""
        return distributed.any_rank(self.bad_steps.item() >= MAX_BAD_STEPS)

    def is_healthy(self, low: Tensor, high: Tensor) -> bool:
        """Return whether the weights are worth saving: losses are good, and the output on the last batch is sane.

        A step that was skipped because only its gradient was not finite leaves such weights. That is usual in float16,
        whose loss scale grows until a gradient overflows. After a rollback, though, a step has to succeed first.
        """
        is_bad = self.has_bad_losses | ((self.bad_steps > 0) & (self.rollbacks > 0))
        return self.has_sane_output(low, high) and not distributed.any_rank(bool(is_bad))

    def was_bad(self) -> bool:
        """Return whether the last step was bad in any process; waits for the device."""
        return distributed.any_rank(bool(self.bad_steps > 0))

    @torch.no_grad()
    def has_sane_output(self, low: Tensor, high: Tensor) -> bool:
        """Return whether the generator's content loss on a batch is at most ``MAX_CONTENT_LOSS`` in all processes.

        The batch is LR (B, C, h, w) and HR (B, C, H, W) in [0, 1]. If batches are split into parts (``accumulation``),
        only the first part is used.
        """
        low, high = (each.chunk(self.stage.accumulation)[0] for each in (low, high))
        with self.stage.autocast():
            fake = self.stage.generator(low)
        is_sane = self.stage.content_loss(fake, high) <= MAX_CONTENT_LOSS
        return not distributed.any_rank(not is_sane)

    def snapshot(self, step: int) -> None:
        """Keep a copy of the current state, after ``step`` completed steps, as the last good one.

        After a skipped step the copy of an earlier state stays, so that bad steps without an end are not overlooked.
        """
        if self.bad_steps > 0:
            return
        self.good = {"step": step, "state": move_to_cpu(capture_state(self.stage, self.ema), copy=True)}
        self.rollbacks = 0

    def roll_back(self) -> None:
        """Restore the last good state and reduce the learning rates."""
        factors = [updater.learning_rate_factor * LEARNING_RATE_FACTOR for updater in self.stage.updaters]
        restore_state(move_to_cpu(self.good["state"], copy=True), self.stage, self.ema)
        for updater, factor in zip(self.stage.updaters, factors, strict=True):
            updater.learning_rate_factor = factor
        self.rollbacks += 1
        # The stage counts as bad until a step succeeds, and ``first_bad`` keeps its value until then.
        self.bad_steps.fill_(1)

    def diagnose(self) -> tuple[str, int]:
        """Return the bad losses of the first bad step in any process as text, and that step, counted from 0."""
        own = torch.tensor([self.bad_steps, self.first_bad, *self.values.tolist()], dtype=torch.float64)
        rows = [row for row in distributed.all_gather(own).tolist() if row[0] > 0]
        bad: dict[str, float] = {}
        for _, _, *values in rows:
            for name, value in zip(self.names, values, strict=True):
                if not abs(value) < float("inf") or (name == "content_loss" and value > MAX_CONTENT_LOSS):
                    bad.setdefault(name, value)
        return ", ".join(f"{name} {value:.3g}" for name, value in bad.items()), int(min(row[1] for row in rows))

    def state_dict(self, step: int) -> dict[str, Any]:
        """Return what a resumed run needs; the good state is included only if it is not that of ``step``."""
        return {
            "rollbacks": self.rollbacks,
            "bad_steps": self.bad_steps,
            "first_bad": self.first_bad,
            "rolled_back_from": self.rolled_back_from,
            "names": self.names,
            "values": self.values,
            "good": self.good if self.good["step"] != step else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of ``state_dict``; call ``restore_state`` for the stage first."""
        device = self.bad_steps.device
        self.rollbacks, self.names = state["rollbacks"], list(state["names"])
        self.rolled_back_from = state.get("rolled_back_from")
        for name in ("bad_steps", "first_bad", "values"):
            setattr(self, name, state[name].to(device))
        self.has_bad_losses = self.bad_steps > 0
        if good := state["good"]:
            # It lacks the discriminator if the adversarial loss begins now.
            stage = self.good["state"]["stage"] | good["state"]["stage"]
            self.good = good | {"state": good["state"] | {"stage": stage}}
