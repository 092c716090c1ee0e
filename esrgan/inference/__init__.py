"""Upscaling images and files with a trained generator."""

from esrgan.inference.compare import compare_models
from esrgan.inference.files import FileOptions, FileResult, upscale_files
from esrgan.inference.frames import upscale_image
from esrgan.inference.jobs import OUTPUT_ENDING, FileJob, Job, is_output_file, name_outputs, plan_jobs
from esrgan.inference.options import UpscaleOptions
from esrgan.inference.upscaler import Upscaler

__all__ = [
    "OUTPUT_ENDING",
    "FileJob",
    "FileOptions",
    "FileResult",
    "Job",
    "UpscaleOptions",
    "Upscaler",
    "compare_models",
    "is_output_file",
    "name_outputs",
    "plan_jobs",
    "upscale_files",
    "upscale_image",
]
