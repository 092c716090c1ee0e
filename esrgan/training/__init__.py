"""Training in two stages, PSNR-oriented and adversarial, from a configuration to model files."""

from esrgan.training.loop import train
from esrgan.training.options import TrainOptions

__all__ = ["TrainOptions", "train"]
