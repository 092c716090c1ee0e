r"""Measure models on photographs as people have them: clean, JPEG-coded and noisy.

    python benchmarks/compressed.py esrgan-photo esrgan-lite realesrgan-x4plus --photos photos/val \
        --vgg-weights vgg16.safetensors -o compressed

The middle of each photograph is reduced by MATLAB's bicubic resizing and then coded as JPEG by Pillow, whose default is
4:2:0, or given Gaussian noise. Both are compared with the photograph. The images are kept in the output folder, and
scores are not measured twice.
"""

import argparse
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import esrgan
from esrgan import images
from esrgan.evaluation import EvaluationOptions
from esrgan.resize import bicubic

SCALE = 4
CONDITIONS = {
    "clean": (0, None),  # standard deviation of the noise in levels, quality of the JPEG
    "JPEG 60": (0, 60),
    "JPEG 75": (0, 75),
    "JPEG 90": (0, 90),
    "noise 4": (4, None),
    "noise 4, JPEG 85": (4, 85),
}
Pixels = NDArray[np.uint8]


def degrade(low: Pixels, noise: int, quality: int | None) -> Pixels:
    """Return an LR image (H, W, 3) with noise, coded as JPEG."""
    if noise:
        sample = np.random.default_rng(0).normal(0, noise, low.shape)
        low = np.clip(low + sample, 0, 255).round().astype(np.uint8)
    if quality is not None:
        file = io.BytesIO()
        Image.fromarray(low).save(file, "JPEG", quality=quality)
        low = np.array(Image.open(file))
    return low


def make_images(photos: Path, crop: int, folder: Path) -> dict[str, tuple[Path, Path]]:
    """Write the images, and return the folders of HR and LR images of each condition."""
    high_folder = folder / "hr"
    datasets = {name: (high_folder, folder / name.replace(", ", "_").replace(" ", "_")) for name in CONDITIONS}
    for path in {high_folder, *(low for _, low in datasets.values())}:
        path.mkdir(parents=True, exist_ok=True)
    for path in images.find_images([photos]):
        photo = images.read_pixels(path, 3)
        height, width = (min(crop, length) // SCALE * SCALE for length in photo.shape[:2])
        top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
        high = photo[top : top + height, left : left + width]
        low = bicubic(high, Fraction(1, SCALE))
        images.write_pixels(high_folder / f"{path.stem}.png", high, overwrite=True)
        for name, settings in CONDITIONS.items():
            images.write_pixels(datasets[name][1] / f"{path.stem}.png", degrade(low, *settings), overwrite=True)
    return datasets


def main() -> None:
    """Print a table with a row for each condition and model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="weight files or names")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--crop", type=int, default=384, help="side of the middle part in px (default: %(default)s)")
    parser.add_argument("--vgg-weights", type=Path, help="weights of VGG16 (default: torchvision's)")
    parser.add_argument("--device", default="auto", help="as for test.py (default: auto)")
    parser.add_argument("-o", "--out-dir", type=Path, required=True, help="folder for the images that are compared")
    args = parser.parse_args()
    datasets = make_images(args.photos, args.crop, args.out_dir)
    options = EvaluationOptions(device=args.device, vgg_weights=args.vgg_weights)
    for number, (name, folders) in enumerate(datasets.items()):
        (result,) = esrgan.evaluate(args.models, [folders], ["psnr", "vgg16"], options).datasets
        if number == 0:
            print(f"| image | model | {' | '.join(metric.label for metric in result.metrics)} |")
            print(f"|---|---|{'--:|' * len(result.metrics)}")
        for method in result.methods:
            cells = [metric.format(result.mean(method, metric)[0]) for metric in result.metrics]
            print(f"| {name} | {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
