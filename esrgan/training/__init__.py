"""The two-stage trainer: ``train(config, options)``."""

from esrgan.training.loop import train
from esrgan.training.setup import TrainOptions

__all__ = ["TrainOptions", "train"]
