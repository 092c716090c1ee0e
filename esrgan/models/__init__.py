"""The networks: two kinds of generators, two discriminators, and VGG features for the perceptual loss."""

from esrgan.models.compact import SRVGGNetCompact
from esrgan.models.discriminator import UNetDiscriminator, VGGDiscriminator
from esrgan.models.generator import Generator
from esrgan.models.rrdbnet import RRDBNet
from esrgan.models.vgg import VGGFeatures

__all__ = ["Generator", "RRDBNet", "SRVGGNetCompact", "UNetDiscriminator", "VGGDiscriminator", "VGGFeatures"]
