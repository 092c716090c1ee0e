"""Measuring images: PSNR, SSIM, NIQE, LPIPS and DISTS.

Importing this loads neither PyTorch nor SciPy: ``niqe`` and ``learned`` do, and are imported by name.
"""

from __future__ import annotations

from esrgan.metrics.metric import METRICS, Metric
from esrgan.metrics.psnr_ssim import measure, psnr, ssim, to_y

__all__ = ["METRICS", "Metric", "measure", "psnr", "ssim", "to_y"]
