"""Measure the quality of images by PSNR, SSIM, NIQE, LPIPS, DISTS and features of VGG16.

Importing this package loads neither PyTorch nor SciPy. The modules ``niqe`` and ``learned`` do; import them by name.
"""

from __future__ import annotations

from esrgan.metrics.metric import METRICS, Metric, finite_mean, select_metrics
from esrgan.metrics.psnr_ssim import measure, psnr, ssim, to_y

__all__ = ["METRICS", "Metric", "finite_mean", "measure", "psnr", "select_metrics", "ssim", "to_y"]
