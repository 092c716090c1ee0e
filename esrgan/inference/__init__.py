"""Upscaling with a trained generator, and measuring it."""

from esrgan.inference.files import FileJob, FileOptions, FileResult, plan_jobs, upscale_files
from esrgan.inference.upscaler import Upscaler

__all__ = ["FileJob", "FileOptions", "FileResult", "Upscaler", "plan_jobs", "upscale_files"]
