"""The two stages of ESRGAN's training (§4.1): pixels first, then the adversary."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from esrgan.losses import (
    ContentLoss,
    PerceptualLoss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from esrgan.models import RRDBNet
from esrgan.training.updater import Schedule, Updater


class Stage(Protocol):
    """What the loop asks of a stage.

    Attributes:
        name: Its section of the configuration: "pretraining" or "training".
        label: Its name in logs: "PSNR-driven" or "GAN-based".
        generator: What it trains.
    """

    name: str
    label: str
    generator: RRDBNet

    def step(self, low: Tensor, high: Tensor, step: int) -> dict[str, Tensor]:
        """Train on LR (B, C, h, w) and HR (B, C, H, W) in [0, 1]; give the losses, still on the device."""

    def learning_rates(self, step: int) -> dict[str, float]:
        """Give the learning rates of a step."""

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed run needs, but for the generator's weights."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""


class Autocast:
    """Enters low precision around forward passes.

    Args:
        device: Where.
        dtype: bfloat16 or float16; None stays in float32.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self.device_type = device.type
        self.dtype = dtype

    def __call__(self) -> torch.autocast:
        """Give the context manager."""
        return torch.autocast(self.device_type, self.dtype, enabled=self.dtype is not None)

    @property
    def scale_loss(self) -> bool:
        """Whether gradients could underflow."""
        return self.dtype == torch.float16


class PixelStage:
    """The PSNR-oriented stage: the content loss alone."""

    name, label = "pretraining", "PSNR-driven"

    def __init__(
        self,
        generator: RRDBNet,
        content_loss: ContentLoss,
        schedule: Schedule,
        betas: tuple[float, float],
        autocast: Autocast,
    ) -> None:
        self.generator = generator
        self.content_loss = content_loss
        self.autocast = autocast
        self.updater = Updater(generator, schedule, betas, autocast.scale_loss)

    def step(self, low: Tensor, high: Tensor, step: int) -> dict[str, Tensor]:
        """See ``Stage``."""
        with self.autocast():
            fake = self.generator(low)
        loss = self.content_loss(fake, high)
        self.updater.update(loss, step)
        return {"content_loss": loss.detach()}

    def learning_rates(self, step: int) -> dict[str, float]:
        """See ``Stage``."""
        return {"learning_rate": self.updater.schedule(step)}

    def state_dict(self) -> dict[str, Any]:
        """See ``Stage``."""
        return {"generator_updater": self.updater.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Stage``."""
        self.updater.load_state_dict(state["generator_updater"])


class AdversarialStage:
    """The GAN stage: L_G = L_percep + λ·L_RaG + η·L_content for the generator, L_RaD for the discriminator.

    Each step trains the generator against the discriminator as it is, then the discriminator on the same images.

    Args:
        generator: Pretrained.
        discriminator: Gives logits.
        content_loss: The pixel loss.
        perceptual_loss: None leaves the term out.
        g_schedule: The generator's learning rate.
        d_schedule: The discriminator's.
        betas: Of both Adams.
        g_adversarial_loss_scaling: λ.
        g_content_loss_scaling: η.
        autocast: Precision of the forward passes.
    """

    name, label = "training", "GAN-based"

    def __init__(
        self,
        generator: RRDBNet,
        discriminator: nn.Module,
        content_loss: ContentLoss,
        perceptual_loss: PerceptualLoss | None,
        g_schedule: Schedule,
        d_schedule: Schedule,
        betas: tuple[float, float],
        g_adversarial_loss_scaling: float,
        g_content_loss_scaling: float,
        autocast: Autocast,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self.content_loss = content_loss
        self.perceptual_loss = perceptual_loss
        self.adversarial_scaling = g_adversarial_loss_scaling
        self.content_scaling = g_content_loss_scaling
        self.autocast = autocast
        self.g_updater = Updater(generator, g_schedule, betas, autocast.scale_loss)
        self.d_updater = Updater(discriminator, d_schedule, betas, autocast.scale_loss)

    def step(self, low: Tensor, high: Tensor, step: int) -> dict[str, Tensor]:
        """See ``Stage``."""
        # The generator. The discriminator only judges: no gradients for its weights.
        self.discriminator.requires_grad_(False)
        with self.autocast():
            fake = self.generator(low)
            with torch.no_grad():
                real_logits = self.discriminator(high)
            fake_logits = self.discriminator(fake)
            perceptual = self.perceptual_loss(fake, high) if self.perceptual_loss is not None else None
        content = self.content_loss(fake, high)
        adversarial = relativistic_generator_loss(real_logits, fake_logits)
        total = self.adversarial_scaling * adversarial + self.content_scaling * content
        if perceptual is not None:
            total = total + perceptual
        self.g_updater.update(total, step)

        # The discriminator, on the same real and generated images.
        self.discriminator.requires_grad_(True)
        with self.autocast():
            real_logits = self.discriminator(high)
            fake_logits = self.discriminator(fake.detach())
        discriminating = relativistic_discriminator_loss(real_logits, fake_logits)
        self.d_updater.update(discriminating, step)

        losses = {
            "content_loss": content,
            "g_adversarial_loss": adversarial,
            "g_total_loss": total,
            "d_adversarial_loss": discriminating,
            "real_logits": real_logits.mean(),
            "fake_logits": fake_logits.mean(),
        }
        if perceptual is not None:
            losses["perceptual_loss"] = perceptual
        return {name: value.detach() for name, value in losses.items()}

    def learning_rates(self, step: int) -> dict[str, float]:
        """See ``Stage``."""
        return {"g_learning_rate": self.g_updater.schedule(step), "d_learning_rate": self.d_updater.schedule(step)}

    def state_dict(self) -> dict[str, Any]:
        """See ``Stage``."""
        return {
            "generator_updater": self.g_updater.state_dict(),
            "discriminator_updater": self.d_updater.state_dict(),
            "discriminator": self.discriminator.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Stage``."""
        self.g_updater.load_state_dict(state["generator_updater"])
        self.d_updater.load_state_dict(state["discriminator_updater"])
        self.discriminator.load_state_dict(state["discriminator"])
