"""The terms of the generator's loss L_G = L_percep + λ·L_adv + η·L_1 (ESRGAN §3.3, equation 3), and optional ones."""

from esrgan.losses.adversarial import (
    ADVERSARIAL_LOSSES,
    AdversarialLoss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from esrgan.losses.artifact import artifact_loss
from esrgan.losses.consistency import consistency_loss
from esrgan.losses.content import ContentLoss
from esrgan.losses.pattern import pattern_loss
from esrgan.losses.perceptual import PerceptualLoss

__all__ = [
    "ADVERSARIAL_LOSSES",
    "AdversarialLoss",
    "ContentLoss",
    "PerceptualLoss",
    "artifact_loss",
    "consistency_loss",
    "pattern_loss",
    "relativistic_discriminator_loss",
    "relativistic_generator_loss",
]
