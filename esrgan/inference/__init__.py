"""Upscaling with a trained generator, and measuring it."""

from esrgan.inference.upscaler import Upscaler

__all__ = ["Upscaler"]
