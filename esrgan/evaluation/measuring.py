"""Measure generators against bicubic on image pairs, and write down what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from esrgan import images, metrics, resize
from esrgan.data import ImagePair, load_pair
from esrgan.errors import EsrganError
from esrgan.inference.upscaler import Upscaler

METRICS = {"psnr_y": "PSNR Y", "ssim_y": "SSIM Y", "psnr_rgb": "PSNR RGB", "ssim_rgb": "SSIM RGB"}
BICUBIC = "bicubic"
CONVENTION = (
    "PSNR in dB and SSIM of 8-bit images, scale px of border cut off; Y is BT.601 studio range; "
    "LR images by MATLAB bicubic where the dataset has none"
)


@dataclass
class Evaluation:
    """Figures of one dataset.

    Attributes:
        dataset: Its name.
        rows: Metrics by image name, then by method; the first method is bicubic.
    """

    dataset: str
    rows: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def means(self) -> dict[str, dict[str, float]]:
        """Average over images, by method."""
        methods = next(iter(self.rows.values()), {})
        return {
            method: {name: float(np.mean([row[method][name] for row in self.rows.values()])) for name in METRICS}
            for method in methods
        }

    def by_psnr(self) -> list[str]:
        """Order the images by what the last model gains over bicubic in PSNR on Y, the greatest gain first."""

        def gain(name: str) -> float:
            figures = [values["psnr_y"] for values in self.rows[name].values()]
            return figures[-1] - figures[0]

        return sorted(self.rows, key=gain, reverse=True)


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Name files by their stems, numbered where they repeat or are what the first method is called."""
    taken = {BICUBIC}
    names = []
    for path in paths:
        candidates = (path.stem, *(f"{path.stem}-{i}" for i in range(2, len(paths) + 3)))
        names.append(next(name for name in candidates if name not in taken))
        taken.add(names[-1])
    return names


def evaluate_pair(
    name: str, pair: ImagePair, models: dict[str, Upscaler], out_dir: Path | None
) -> dict[str, dict[str, float]]:
    """Measure bicubic and each model on one pair.

    Args:
        name: What the image is called in results.
        pair: HR and perhaps LR.
        models: Of one scale and number of channels, by name.
        out_dir: Folder for the enlarged images and a sheet of all side by side; None writes nothing.

    Raises:
        EsrganError: If the pair cannot be read, is too small for SSIM, or the images not written.
    """
    upscaler = next(iter(models.values()))
    low, high = load_pair(pair, upscaler.scale, upscaler.network.conv_last.out_channels)
    outputs = {BICUBIC: resize.bicubic(low, Fraction(upscaler.scale))}
    outputs |= {name: model(low) for name, model in models.items()}
    try:
        row = {method: metrics.measure(output, high, upscaler.scale) for method, output in outputs.items()}
    except ValueError as error:
        raise EsrganError(f"{pair.high}: {error}") from error
    if out_dir is not None:
        for method, output in outputs.items():
            if method != BICUBIC:
                images.write(out_dir / f"{name}_{method}.png", output, overwrite=True)
        nearest = low.repeat(upscaler.scale, axis=0).repeat(upscaler.scale, axis=1)
        sheet = images.panel([[nearest, *outputs.values(), high]], ["LR (nearest)", *outputs, "HR"])
        images.write(out_dir / f"{name}_sheet.png", sheet, overwrite=True)
    return row


def table(evaluation: Evaluation) -> str:
    """Write an evaluation as a Markdown table: a row for each image and method, the means last."""
    lines = [
        f"| {evaluation.dataset} | method | {' | '.join(METRICS.values())} |",
        f"|---|---|{'---:|' * len(METRICS)}",
    ]
    for name, methods in [*evaluation.rows.items(), ("**mean**", evaluation.means())]:
        for method, values in methods.items():
            figures = " | ".join(f"{values[key]:.{4 if 'ssim' in key else 2}f}" for key in METRICS)
            lines.append(f"| {name} | {method} | {figures} |")
    return "\n".join(lines)


def extremes(evaluation: Evaluation, count: int) -> str:
    """Name the images with the best and the worst results against bicubic."""
    names: Sequence[str] = evaluation.by_psnr()
    best, worst = names[:count], names[::-1][:count]
    return f"most gained over bicubic: {', '.join(best)}\nleast gained: {', '.join(worst)}"
