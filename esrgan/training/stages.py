"""The two training stages of ESRGAN (§4.1): PSNR-oriented, then adversarial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import override

from esrgan.losses import (
    ADVERSARIAL_LOSSES,
    AdversarialLoss,
    ContentLoss,
    PerceptualLoss,
    artifact_loss,
    consistency_loss,
    pattern_loss,
)
from esrgan.losses.content import at_least_float32
from esrgan.models import Generator
from esrgan.training.pause import DiscriminatorPause
from esrgan.training.updater import Updater, ramp


class Stage(Protocol):
    """Interface between a training stage and the loop.

    Attributes:
        name: Section of the configuration: "pretraining" or "training".
        updaters: Updaters of all networks that the stage trains.
        autocast: Precision of the forward passes.
        accumulation: Number of parts of a batch that are computed one after the other, to save memory.
    """

    name: str
    generator: Generator
    content_loss: ContentLoss
    updaters: Sequence[Updater]
    autocast: Autocast
    accumulation: int

    def step(self, low: Tensor, high: Tensor, step: int, target: Tensor | None = None) -> dict[str, Tensor]:
        """Train on a batch.

        Args:
            low: LR (B, C, h, w) in [0, 1].
            high: HR (B, C, H, W) in [0, 1].
            step: Counted from 0.
            target: Target of all losses but the adversarial ones, shaped like ``high``; None uses ``high``. The
                discriminator always sees ``high``.

        Returns:
            Losses and gradient norms, on the device.
        """

    def learning_rates(self, step: int) -> dict[str, float]:
        """Return the learning rates of a step, by name."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs except the generator's weights."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of ``state_dict``."""


@dataclass(frozen=True)
class Autocast:
    """Factory of context managers that run forward passes in bfloat16 or float16, or with None in float32."""

    device: torch.device
    dtype: torch.dtype | None = None

    def __call__(self) -> torch.autocast:
        """Return a new context manager."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    @property
    def needs_loss_scaling(self) -> bool:
        """Whether gradients could underflow without loss scaling."""
        return self.dtype == torch.float16


@dataclass(eq=False)
class PixelStage(Stage):
    """The PSNR-oriented stage, which uses only the content loss."""

    generator: Generator
    content_loss: ContentLoss
    updater: Updater
    autocast: Autocast
    accumulation: int = 1

    name = "pretraining"

    def __post_init__(self) -> None:
        self.updaters = (self.updater,)

    @override
    def step(self, low: Tensor, high: Tensor, step: int, target: Tensor | None = None) -> dict[str, Tensor]:
        target = high if target is None else target
        means = _mean_losses([self._backward(*each) for each in _split_batch(self.accumulation, low, target)])
        return means | {"gradient_norm": self.updater.update(means["content_loss"], step)}

    def _backward(self, low: Tensor, target: Tensor) -> dict[str, Tensor]:
        with self.autocast():
            fake = self.generator(low)
        loss = self.content_loss(fake, target)
        torch.autograd.backward(self.updater.scaler.scale(loss / self.accumulation))
        return {"content_loss": loss.detach()}

    @override
    def learning_rates(self, step: int) -> dict[str, float]:
        return {"learning_rate": self.updater.learning_rate(step)}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"generator_updater": self.updater.state_dict()}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updater.load_state_dict(state["generator_updater"])


@dataclass(eq=False)
class AdversarialStage(Stage):
    """The GAN stage: L_G = L_percep + λ·L_adv + η·L_content for the generator, L_D for the discriminator.

    If λ is 0, the discriminator is neither computed nor trained.

    With ``artifact_scaling``, L_G also has the artefact loss of LDL, which compares the output with the average's, with
    ``consistency_scaling`` the consistency loss, and with ``pattern_scaling`` the pattern loss.

    Both networks are updated from the same pass of the discriminator over real and generated images, so each is trained
    against the other's weights from before the step. If a batch is computed in parts (``accumulation``), the
    relativistic means and the discriminator's batch normalisation are computed per part.
    """

    generator: Generator  # pretrained
    discriminator: nn.Module  # returns logits
    content_loss: ContentLoss
    perceptual_loss: PerceptualLoss | None  # None omits the term
    g_updater: Updater
    d_updater: Updater
    adversarial_scaling: float  # λ
    content_scaling: float  # η
    autocast: Autocast
    accumulation: int = 1
    adversarial_loss: AdversarialLoss = ADVERSARIAL_LOSSES["ragan"]
    artifact_scaling: float = 0.0
    average: Generator | None = None  # the moving average of the generator, for the artefact loss
    adversarial_ramp_steps: int = 0  # over which λ grows from 0
    pause: DiscriminatorPause | None = None  # None trains the discriminator in every step
    consistency_scaling: float = 0.0
    pattern_scaling: float = 0.0

    name = "training"

    def __post_init__(self) -> None:
        self.updaters = (self.g_updater, self.d_updater) if self.adversarial_scaling else (self.g_updater,)
        self.unused_discriminator: dict[str, Any] = {}  # its state in the checkpoint, kept while λ is 0

    @override
    def step(self, low: Tensor, high: Tensor, step: int, target: Tensor | None = None) -> dict[str, Tensor]:
        target = high if target is None else target
        buffers = list(self.discriminator.buffers()) if self.adversarial_scaling else []
        before = [buffer.clone() for buffer in buffers]
        scaling = ramp(step, self.adversarial_ramp_steps) * self.adversarial_scaling
        parts = _split_batch(self.accumulation, low, high, target)
        means = _mean_losses([self._backward(scaling, *each) for each in parts])
        means["g_gradient_norm"] = self.g_updater.update(means["g_total_loss"], step)
        if not self.adversarial_scaling:
            return means
        pause = None if self.pause is None else self.pause.is_due(means["d_adversarial_loss"])
        d_norm = self.d_updater.update(means["d_adversarial_loss"], step, pause)
        # A skipped step must not change BatchNorm statistics either.
        is_good = d_norm.isfinite()
        kept = [torch.where(is_good, buffer, old) for buffer, old in zip(buffers, before, strict=True)]
        if buffers:  # without BatchNorm, as of a single convolution, there are none
            torch._foreach_copy_(buffers, kept)
        return means | {"d_gradient_norm": d_norm} | ({} if pause is None else {"d_paused": pause.float()})

    def _backward(self, adversarial_scaling: float, low: Tensor, high: Tensor, target: Tensor) -> dict[str, Tensor]:
        averaged = self._average_output(low)
        with self.autocast():
            fake = self.generator(low)
        # Each loss adds its gradient with respect to the image, and its graph is freed before the next one is built.
        # The generator's backward pass runs once, at the end.
        image = at_least_float32(fake.detach()).requires_grad_()

        adversarial = self._discriminate(image, high, adversarial_scaling) if self.adversarial_scaling else {}
        distances, weighted_sum = self._distances(image, target, averaged)
        torch.autograd.backward(self.g_updater.scaler.scale(weighted_sum / self.accumulation), inputs=[image])
        assert image.grad is not None  # noqa: S101  (narrows the type)
        torch.autograd.backward(fake, image.grad.to(fake.dtype))

        total = weighted_sum + adversarial_scaling * adversarial["g_adversarial_loss"] if adversarial else weighted_sum
        losses = distances | adversarial | {"g_total_loss": total}
        # In the order that log lines and the checkpoints of earlier versions have.
        first = [name for name in ("content_loss", "g_adversarial_loss", "g_total_loss") if name in losses]
        return {name: losses[name].detach() for name in (*first, *adversarial, *distances)}

    def _discriminate(self, image: Tensor, high: Tensor, adversarial_scaling: float) -> dict[str, Tensor]:
        """Add the gradients of the adversarial losses to the image and the discriminator, and return the losses."""
        with self.autocast():
            real_logits, fake_logits = self.discriminator(high), self.discriminator(image)
        adversarial = self.adversarial_loss.generator(real_logits.detach(), fake_logits)
        discriminating = self.adversarial_loss.discriminator(real_logits, fake_logits)
        g_scale, d_scale = (each.scaler.scale for each in (self.g_updater, self.d_updater))
        share = 1 / self.accumulation
        weighted = g_scale(adversarial_scaling * share * adversarial)
        torch.autograd.backward(weighted, inputs=[image], retain_graph=True)
        torch.autograd.backward(d_scale(share * discriminating), inputs=self.d_updater.parameters)
        return {
            "g_adversarial_loss": adversarial,
            "d_adversarial_loss": discriminating,
            "real_logits": real_logits.mean(),
            "fake_logits": fake_logits.mean(),
        }

    @torch.no_grad()
    def _average_output(self, low: Tensor) -> Tensor | None:
        """Return the output of the averaged generator, or None if no loss needs it."""
        if not self.artifact_scaling or self.average is None:
            return None
        with self.autocast():
            return self.average(low)  # type: ignore[no-any-return]

    def _distances(self, image: Tensor, target: Tensor, averaged: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses that compare the image with its target, by name, and their weighted sum."""
        losses = {"content_loss": self.content_loss(image, target)}
        total = self.content_scaling * losses["content_loss"]
        if self.perceptual_loss is not None:
            with self.autocast():
                losses["perceptual_loss"] = self.perceptual_loss(image, target)
            total = total + losses["perceptual_loss"]
        if averaged is not None:
            losses["artifact_loss"] = artifact_loss(image, averaged, target)
            total = total + self.artifact_scaling * losses["artifact_loss"]
        if self.consistency_scaling:
            losses["consistency_loss"] = consistency_loss(image, target)
            total = total + self.consistency_scaling * losses["consistency_loss"]
        if self.pattern_scaling:
            losses["pattern_loss"] = pattern_loss(image, target, self.generator.scale_factor)
            total = total + self.pattern_scaling * losses["pattern_loss"]
        return losses, total

    @override
    def learning_rates(self, step: int) -> dict[str, float]:
        rates = {"g_learning_rate": self.g_updater.learning_rate(step)}
        return rates | ({"d_learning_rate": self.d_updater.learning_rate(step)} if self.adversarial_scaling else {})

    @override
    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"generator_updater": self.g_updater.state_dict()} | self.unused_discriminator
        if self.adversarial_scaling:
            state["discriminator_updater"] = self.d_updater.state_dict()
            state["discriminator"] = self.discriminator.state_dict()
        if self.pause is not None:
            state["pause"] = self.pause.state_dict()
        return state

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.g_updater.load_state_dict(state["generator_updater"])
        if not self.adversarial_scaling:  # it may be of another type than the configured one
            names = ("discriminator_updater", "discriminator")
            self.unused_discriminator = {name: state[name] for name in names if name in state}
        elif "discriminator" in state:
            self.d_updater.load_state_dict(state["discriminator_updater"])
            self.discriminator.load_state_dict(state["discriminator"])
        # Rollbacks reduce the rates of both networks, also while the discriminator is not used.
        self.d_updater.learning_rate_factor = self.g_updater.learning_rate_factor
        if self.pause is not None and "pause" in state:
            self.pause.load_state_dict(state["pause"])


def _split_batch(count: int, *images: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(each.chunk(count) for each in images), strict=True)


def _mean_losses(losses: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Average the losses of equal parts of a batch."""
    if len(losses) == 1:
        return losses[0]
    return {name: torch.stack([each[name] for each in losses]).mean() for name in losses[0]}
