"""The networks: the RRDBNet generator, two discriminators, and VGG features for the perceptual loss."""

from esrgan.models.discriminator import UNetDiscriminator, VGGDiscriminator
from esrgan.models.generator import RRDBNet
from esrgan.models.vgg import VGGFeatures

__all__ = ["RRDBNet", "UNetDiscriminator", "VGGDiscriminator", "VGGFeatures"]
