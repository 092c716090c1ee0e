"""Upscaling with a trained generator, and measuring it."""

from esrgan.inference.batch import Job, Options, Result, plan, upscale_files
from esrgan.inference.upscaler import Upscaler

__all__ = ["Job", "Options", "Result", "Upscaler", "plan", "upscale_files"]
