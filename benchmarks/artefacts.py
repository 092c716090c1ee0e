r"""Measure what PSNR and NIQE do not show: shifted colours, periodic patterns and specks.

    python benchmarks/artefacts.py esrgan-lite esrgan-full --photos photos/val

The middle of each photograph is reduced by MATLAB's bicubic resizing, upscaled, and compared with the photograph.

Mean colour: the mean of the output minus that of the photograph, in 8-bit levels. "Mean" is over all photographs, of
the channel with the largest one. "Largest" is of any channel in one photograph.

Periodic patterns: networks that upsample by 2 can leave patterns with periods of 2 and 4 px, which are peaks of the
spectrum. The power spectrum of luma is averaged over blocks of 64 px with a Hann window. At each frequency of such
patterns, the amplitude (the root of the power) is divided by that of the surroundings: the median at 5 to 8 of 64 steps
on both sides, along the row or the column of the spectrum, whichever is larger. So a ridge of the spectrum, which edges
cause, is not a peak. Each ratio is a geometric mean over the photographs, and the table has the largest. A photograph
has ratios other than 1 too, because spectra fall with frequency and JPEG has blocks of 8 px. The number behind the
slash is therefore the largest quotient of a ratio and the photographs' own. A peak has both numbers well above 1.

Specks: spots that differ from the median of the 5×5 px around them by over 48 levels more than any pixel of the
photograph within 4 px does, per megapixel. Detail that a model invents where the photograph is smooth counts too.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

import esrgan
from esrgan import images
from esrgan.resize import bicubic

SHIFT_LIMIT = 0.3  # levels
BLOCK = 64  # px
NEAR, FAR = 5, 8  # steps of the spectrum between a frequency and its surroundings
SPECK_LEVELS = 48
SPECK_REACH = 4  # px within which the photograph may have the same detail
LUMA = np.array([0.299, 0.587, 0.114])
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]


def measure_shift(high: Pixels, photo: Pixels) -> Floats:
    """Return by how many levels the mean of each channel (3,) is above the photograph's."""
    return high.mean((0, 1)) - photo.mean((0, 1))


def measure_spectrum(image: Pixels) -> Floats:
    """Return the logarithm of the mean amplitude of luma at each frequency: (64, 64)."""
    blocks = sliding_window_view(image @ LUMA, (BLOCK, BLOCK))[:: BLOCK // 2, :: BLOCK // 2].reshape(-1, BLOCK, BLOCK)
    hann = np.hanning(BLOCK + 1)[:-1]
    blocks = (blocks - blocks.mean((1, 2), keepdims=True)) * np.outer(hann, hann)
    power = (np.abs(np.fft.fft2(blocks)) ** 2).mean(0)
    return np.asarray(np.log(power + 1e-12 * power.max() + 1e-12) / 2)  # not -inf in images without detail


def find_peaks(level: Floats, period: int) -> Floats:
    """Return by how much a spectrum is above its surroundings, at each frequency of patterns with this period."""
    steps = np.arange(NEAR, FAR + 1)
    steps = np.concatenate([-steps, steps])
    peaks = []
    for a in range(period):
        for b in range(period):
            if math.gcd(a, b, period) == 1:  # otherwise the pattern has a shorter period
                row, column = a * BLOCK // period, b * BLOCK // period
                lines = level[row, (column + steps) % BLOCK], level[(row + steps) % BLOCK, column]
                peaks.append(level[row, column] - max(np.median(line) for line in lines))
    return np.array(peaks)


def measure_contrast(image: Pixels) -> NDArray[np.int16]:
    """Return by how many levels pixels differ from the median of the 5×5 px around them, in the worst channel."""
    channels = [image[..., i].astype(np.int16) for i in range(3)]
    contrasts = [np.abs(channel - ndimage.median_filter(channel, 5)) for channel in channels]
    return np.asarray(np.max(contrasts, axis=0))


def count_specks(high: Pixels, photo: Pixels) -> int:
    """Return the number of spots that stand out by much more than anything in the photograph near them."""
    usual = ndimage.maximum_filter(measure_contrast(photo), 2 * SPECK_REACH + 1)
    _, count = ndimage.label(measure_contrast(high) > usual + SPECK_LEVELS, np.ones((3, 3)))
    return int(count)


def read_photos(folder: Path, crop: int | None, scale: int) -> Iterator[tuple[str, Pixels]]:
    """Yield the name and the middle of each photograph; its sides are multiples of the scale."""
    for path in images.find_images([folder]):
        photo = images.read_pixels(path, 3)
        height, width = (min(crop or length, length) // scale * scale for length in photo.shape[:2])
        if min(height, width) < BLOCK:
            raise SystemExit(f"error: {path}: {width}×{height} px remain; expected at least {BLOCK}×{BLOCK}")
        top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
        yield path.name, photo[top : top + height, left : left + width]


def measure(
    photos: Iterator[tuple[str, Pixels]], upscale: Callable[[Pixels], Pixels], scale: int, periods: list[int]
) -> list[str]:
    """Return the cells of a method's row."""
    names, shifts, spectra, specks, area = [], [], [], 0, 0
    for name, photo in photos:
        high = upscale(bicubic(photo, Fraction(1, scale)))
        names.append(name)
        shifts.append(measure_shift(high, photo))
        specks += count_specks(high, photo)
        area += photo.shape[0] * photo.shape[1]
        spectra.append((measure_spectrum(high), measure_spectrum(photo)))
    mean = np.mean(shifts, axis=0)
    largest = np.abs(shifts).max(axis=1)
    cells = [f"{mean[np.abs(mean).argmax()]:+.2f}", f"{largest.max():.2f} ({names[largest.argmax()]})"]
    cells.append(str(np.count_nonzero(largest > SHIFT_LIMIT)))
    for period in periods:
        peaks, own = np.mean([[find_peaks(each, period) for each in pair] for pair in spectra], axis=0)
        cells.append(f"{np.exp(peaks.max()):.2f} / {np.exp((peaks - own).max()):.2f}")
    return [*cells, f"{specks / area * 1e6:.1f}"]


def main() -> None:
    """Print a table with a row for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="weight files or names, all of one scale")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--crop", type=int, help="side of the middle part in px (default: whole photographs)")
    parser.add_argument("--device", default="auto", help="as for test.py (default: auto)")
    args = parser.parse_args()
    upscalers = {model: esrgan.Upscaler.from_file(model, args.device, "exact") for model in args.models}
    scales = {upscaler.scale for upscaler in upscalers.values()}
    if len(scales) > 1:
        parser.error(f"the models' scales are {sorted(scales)}; compare models of one scale")
    (scale,) = scales
    periods = [period for period in (2, 4) if period <= scale]
    if not periods:
        parser.error("the models do not upscale; expected a scale of at least 2")

    def photos() -> Iterator[tuple[str, Pixels]]:
        return read_photos(args.photos, args.crop, scale)

    columns = ["mean colour, mean", "largest", f"photographs beyond {SHIFT_LIMIT}"]
    columns += [*(f"period of {period} px" for period in periods), "specks per MP"]
    print(f"| method | {' | '.join(columns)} |")
    print(f"|---|{'--:|' * len(columns)}")
    spectra = [measure_spectrum(photo) for _, photo in photos()]
    own = [np.exp(np.mean([find_peaks(each, period) for each in spectra], axis=0).max()) for period in periods]
    print(f"| original | | | | {' | '.join(f'{ratio:.2f}' for ratio in own)} | |", flush=True)
    methods: dict[str, Callable[[Pixels], Pixels]] = {"bicubic": lambda low: bicubic(low, Fraction(scale)), **upscalers}
    for name, upscale in methods.items():
        print(f"| {name} | {' | '.join(measure(photos(), upscale, scale, periods))} |", flush=True)


if __name__ == "__main__":
    main()
