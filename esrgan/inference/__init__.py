"""Upscaling images and files with a trained generator."""

from esrgan.inference.files import FileJob, FileOptions, FileResult, plan_jobs, upscale_files
from esrgan.inference.upscaler import Upscaler

__all__ = ["FileJob", "FileOptions", "FileResult", "Upscaler", "plan_jobs", "upscale_files"]
