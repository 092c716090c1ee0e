"""Make the images of the tutorials: python scripts/tutorial_images.py [FOLDER].

Without FOLDER, make those of the first tutorial, from docs/pictures/chelsea.png and the bundled models. FOLDER is the
one in which the commands of the second and third tutorials have been run; then make the images of these two.
"""

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from esrgan import Upscaler, load_generator
from esrgan.interpolation import blend
from esrgan.resize import bicubic

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
GAP, LABEL = 8, 22  # px
MARGIN = 16  # px around a crop that are upscaled with it, so that its edges look as they do in the whole image


def write_row(images: dict[str, Image.Image], name: str) -> None:
    """Write images of one size next to each other, each with its label above it."""
    width, height = next(iter(images.values())).size
    sheet = Image.new("RGB", (len(images) * (width + GAP) - GAP, height + LABEL), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (label, image) in enumerate(images.items()):
        left = number * (width + GAP)
        draw.text((left, 2), label, "black", ImageFont.load_default(15))
        sheet.paste(image, (left, LABEL))
    sheet.save(PICTURES / name, quality=88, optimize=True)
    print(PICTURES / name)


def upscale_crop(low: np.ndarray, upscalers: dict, left: int, top: int, width: int, height: int) -> dict:
    """Upscale a crop of an LR image by bicubic and by each upscaler, and return the results by their labels."""
    part = low[top - MARGIN : top + height + MARGIN, left - MARGIN : left + width + MARGIN]
    inner = slice(4 * MARGIN, 4 * (MARGIN + height)), slice(4 * MARGIN, 4 * (MARGIN + width))
    results = {"bicubic": bicubic(part, 4)} | {label: model(part) for label, model in upscalers.items()}
    return {label: Image.fromarray(result[inner]) for label, result in results.items()}


def make_first_photograph() -> None:
    """Upscale two crops of the cat."""
    cat = np.asarray(Image.open(PICTURES / "chelsea.png").convert("RGB"))
    psnr, gan = load_generator("esrgan-photo-psnr"), load_generator("esrgan-photo")
    generators = {"--alpha 0": psnr, "--alpha 0.5": blend(psnr, gan, 0.5), "--alpha 1": gan}
    upscalers = {label: Upscaler.from_file(each, precision="fp32") for label, each in generators.items()}
    eye = upscale_crop(cat, {"esrgan-photo": upscalers["--alpha 1"]}, 100, 85, 108, 92)
    write_row(eye, "tutorial_before_after.jpg")
    fur = upscale_crop(cat, upscalers, 92, 118, 72, 72)
    del fur["bicubic"]
    write_row(fur, "tutorial_alpha.jpg")


def make_training(folder: Path) -> None:
    """Draw the validation of the second tutorial's run, and upscale with the models of both tutorials."""
    import matplotlib.pyplot as plt

    lines = (folder / "saved_models/logs/mine/log.jsonl").read_text("utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record["stage"] == "pretraining" and record["step"]]
    points, reference = (
        [(record["step"], record["PSNR"]) for record in records if record["split"] == split]
        for split in ("validation", "bicubic")
    )
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot(*zip(*points, strict=True), marker="o", label="our model")
    axes.plot(*zip(*reference, strict=True), color="grey", linestyle="--", label="bicubic")
    axes.set(xlabel="step", ylabel="validation PSNR on Y in dB")
    axes.legend()
    figure.savefig(PICTURES / "tutorial_learning.png", dpi=110)
    print(PICTURES / "tutorial_learning.png")

    coffee = np.asarray(Image.open(folder / "photos/val/coffee.png").convert("RGB"))
    left, top, side = 72, 52, 44  # px of a crop of the LR image
    original = Image.fromarray(coffee[4 * top : 4 * (top + side), 4 * left : 4 * (left + side)])
    mine = Upscaler.from_file(folder / "saved_models/mine_RRDB_PSNR_x4.pth", precision="fp32")
    bundled = Upscaler.from_file("esrgan-lite-psnr", precision="fp32")
    low = bicubic(coffee, Fraction(1, 4))
    results = upscale_crop(low, {"our model": mine, "esrgan-lite-psnr": bundled}, left, top, side, side)
    write_row(results | {"original": original}, "tutorial_trained.jpg")

    tuned = Upscaler.from_file(folder / "saved_models/jpeg_RRDB_PSNR_x4.pth", precision="fp32")
    low = np.asarray(Image.open(folder / "photos/val_small/coffee.jpg"))
    results = upscale_crop(low, {"esrgan-lite-psnr": bundled, "fine-tuned": tuned}, left, top, side, side)
    write_row(results | {"original": original}, "tutorial_fine_tuned.jpg")


if len(sys.argv) > 1:
    make_training(Path(sys.argv[1]))
else:
    make_first_photograph()
