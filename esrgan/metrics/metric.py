"""What is known of each metric without computing it, for tables and their captions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric as tables show it.

    Attributes:
        name: Its name in files and on command lines.
        label: What it is called.
        unit: "dB", or nothing.
        higher_is_better: Whether it tells quality; a distance tells the lack of it.
        digits: Decimal places to print.
        needs_reference: Whether it compares with an original.
        channels: "Y" (BT.601 studio range; a grey image is its own Y) or "RGB".
        convention: How it is computed, in a few words. All cut the border off first.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool
    digits: int
    needs_reference: bool
    channels: str
    convention: str


_PSNR = "8 bits, peak 255"
_SSIM = "8 bits, 11x11 Gaussian window with σ 1.5 where it fits"
_LPIPS = "LPIPS v0.1, no resizing"

_METRICS = (
    Metric("psnr_y", "PSNR Y", "dB", True, 2, True, "Y", _PSNR),
    Metric("ssim_y", "SSIM Y", "", True, 4, True, "Y", _SSIM),
    Metric("psnr_rgb", "PSNR RGB", "dB", True, 2, True, "RGB", _PSNR),
    Metric("ssim_rgb", "SSIM RGB", "", True, 4, True, "RGB", f"{_SSIM}, mean of the channels"),
    Metric("niqe", "NIQE", "", False, 2, False, "Y", "Y rounded to 8 bits, 96x96 blocks, the release's pristine model"),
    Metric("lpips_alex", "LPIPS (AlexNet)", "", False, 4, True, "RGB", _LPIPS),
    Metric("lpips_vgg", "LPIPS (VGG)", "", False, 4, True, "RGB", _LPIPS),
    Metric("dists", "DISTS", "", False, 4, True, "RGB", "no resizing"),
)
METRICS = {metric.name: metric for metric in _METRICS}
