"""The three terms of the generator's loss L_G = L_percep + λ·L_RaG + η·L_1 (ESRGAN §3.3, equation 3)."""

from esrgan.losses.content import ContentLoss
from esrgan.losses.perceptual import PerceptualLoss
from esrgan.losses.relativistic import relativistic_discriminator_loss, relativistic_generator_loss

__all__ = ["ContentLoss", "PerceptualLoss", "relativistic_discriminator_loss", "relativistic_generator_loss"]
