"""Measure the quality of images by PSNR, SSIM, NIQE, LPIPS and DISTS.

Importing this package loads neither PyTorch nor SciPy. The modules ``niqe`` and ``learned`` do; import them by name.
"""

from __future__ import annotations

from esrgan.metrics.metric import METRICS, Metric, finite_mean
from esrgan.metrics.psnr_ssim import measure, psnr, ssim, to_y

__all__ = ["METRICS", "Metric", "finite_mean", "measure", "psnr", "ssim", "to_y"]
