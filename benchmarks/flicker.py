"""Measure how much upscaled videos flicker: python benchmarks/flicker.py MODELS --photo photo.png [--clip film.mp4].

The first figure is of a pan: a photograph that moves by a pixel of the output from frame to frame is reduced by
MATLAB's bicubic resizing, upscaled, and moved back. The second is of a real video: where a frame differs from the one
before by at most two levels, with all pixels around it, its output should not differ either. Both are mean absolute
differences between one output and the next, in 8-bit levels of luma.
"""

import argparse
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

import esrgan
from esrgan import images
from esrgan.resize import bicubic
from esrgan.video import colour
from esrgan.video.pipeline import FrameUpscaler
from esrgan.video.source import Video

SCALE = 4
BORDER = 16  # px of the output at each edge that are not compared
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
Pixels = NDArray[np.uint8]


def pan(photo: Path, frames: int, side: int) -> Iterator[Pixels]:
    """Yield reduced frames of a photograph that moves to the left, by a pixel before the reduction."""
    pixels = images.read_pixels(photo, 3)
    side = min(side, *pixels.shape[:2], pixels.shape[1] - frames) // SCALE * SCALE
    top = (pixels.shape[0] - side) // 2
    for i in range(frames):
        yield bicubic(pixels[top : top + side, i : i + side], Fraction(1, SCALE))


def clip(path: Path, frames: int) -> Iterator[Pixels]:
    """Yield the first frames of a video."""
    video = Video(path)
    for _, shot in zip(range(frames), video.shots(), strict=False):
        yield colour.to_pixels(shot.frame, video.properties.coding)


def upscale(model: str, lows: list[Pixels], steady: float | None) -> list[Pixels]:
    """Return the upscaled frames."""
    if model == "bicubic":
        return [bicubic(low, Fraction(SCALE)) for low in lows]
    upscale_frames = FrameUpscaler(esrgan.Upscaler.from_file(model), steady)
    return [high for low in lows for high in upscale_frames([low])]


def measure_pan(highs: list[Pixels]) -> float:
    """Return the difference from the next frame, moved back."""
    lumas = [high.astype(np.float32) @ LUMA for high in highs]
    inside = slice(BORDER, -BORDER)
    pairs = itertools.pairwise(lumas)
    return float(np.mean([np.abs(a[inside, 1:][:, inside] - b[inside, :-1][:, inside]).mean() for a, b in pairs]))


def measure_still(lows: list[Pixels], highs: list[Pixels]) -> tuple[float, float]:
    """Return the difference from the next frame where the video stands still, and the share of it that does."""
    differences, shares = [], []
    for (low, high), (after, next_high) in itertools.pairwise(zip(lows, highs, strict=True)):
        moves = torch.from_numpy((np.abs(low.astype(int) - after).max(axis=2) > 2).astype(np.float32))
        moves = F.max_pool2d(moves[None, None], 7, 1, 3)
        still = F.interpolate(moves, high.shape[:2])[0, 0].numpy() == 0
        difference = np.abs((high.astype(np.float32) - next_high) @ LUMA)
        differences.append(difference[still].sum())
        shares.append(still.mean())
    return float(sum(differences) / (sum(shares) * highs[0].shape[0] * highs[0].shape[1])), float(np.mean(shares))


def main() -> None:
    """Print a table with a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="weight files or names")
    parser.add_argument("--photo", type=Path, required=True, help="the photograph that moves")
    parser.add_argument("--clip", type=Path, help="a video with parts that stand still")
    parser.add_argument("--frames", type=int, default=12, help="frames of each (default: %(default)s)")
    parser.add_argument(
        "--side", type=int, default=384, help="side of the photograph's part in px (default: %(default)s)"
    )
    parser.add_argument("--steady", type=float, help="as for esrgan video")
    args = parser.parse_args()
    moving = list(pan(args.photo, args.frames, args.side))
    video = list(clip(args.clip, args.frames)) if args.clip else []
    print("| model | pan | video, where it stands still |")
    print("|---|--:|--:|")
    for model in ["bicubic", *args.models]:
        cells = [f"{measure_pan(upscale(model, moving, args.steady)):.2f}"]
        if video:
            difference, share = measure_still(video, upscale(model, video, args.steady))
            cells.append(f"{difference:.2f} ({share:.0%})")
        print(f"| {' | '.join([model, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
