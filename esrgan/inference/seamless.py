"""Continue images beyond their edges, so that their upscaled versions can be repeated without seams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from esrgan.inference.direct import SMALL_INPUT_ELEMENTS
from esrgan.inference.network import receptive_field
from esrgan.models import Generator

Margins = tuple[int, int]  # how many rows and columns of an image, on each side, lie outside what is wanted
RESIZING_PX = 4  # how many pixels of the input, on each side, resizing of the output may depend on


def plan_margins(
    generators: Sequence[Generator], sizes: Sequence[tuple[int, int]], high: tuple[int, int], seamless: str | None
) -> list[Margins]:
    """Return by how many rows and columns the input of each network is continued on each side.

    They are as many as the pixels of the output depend on, so that no edge of the continued image affects them, and
    whole numbers of pixels in the output. Small images are continued further, because PyTorch rounds them in another
    way (see ``SMALL_INPUT_ELEMENTS``), which depends on the place of a pixel. What a network puts out beyond the
    margins of the next one is cut off.

    Args:
        generators: The generators in the order in which they are applied.
        sizes: Height and width of the image before each network, and after the last one.
        high: Height and width of the output after resizing.
        seamless: As for ``UpscaleOptions.seamless``.
    """
    if seamless is None:
        return [(0, 0)] * len(generators)
    fold = math.lcm(*(each.unshuffle_factor for each in generators))
    after = sizes[-2][0] * generators[-1].scale_factor, sizes[-2][1] * generators[-1].scale_factor
    reach = RESIZING_PX * max(1, sizes[0][0] / high[0]) * (after[0] / sizes[0][0])
    margins: list[Margins] = []  # from the last network to the first one
    for generator, size in zip(reversed(generators), reversed(sizes[:-1]), strict=True):
        factor = min(after[0] / size[0], after[1] / size[1])
        if factor < generator.scale_factor:  # reduced before the next network
            reach += RESIZING_PX
        reach = receptive_field(generator) + reach / factor
        least = max(margins[-1]) / factor if margins else 0.0
        smallest = SMALL_INPUT_ELEMENTS * generator.unshuffle_factor**2
        margins.append(_find_margins(size, (high, after), max(reach, least), seamless, fold, smallest))
        after = size
    return margins[::-1]


def _find_margins(
    sides: tuple[int, int],
    later: Sequence[tuple[int, int]],
    reach: float,
    seamless: str,
    fold: int,
    smallest: int,
) -> Margins:
    def margin(axis: int) -> int:
        old = sides[axis]
        unit = math.lcm(fold, *(old // math.gcd(old, size[axis]) for size in later))
        return math.ceil(reach / unit) * unit

    while True:
        rows = 0 if seamless == "wrap-x" else margin(0)
        columns = 0 if seamless == "wrap-y" else margin(1)
        if (sides[0] + 2 * rows) * (sides[1] + 2 * columns) > smallest:
            return rows, columns
        reach *= 1.2


def find_problem(
    generators: Sequence[Generator], factors: Sequence[float], low: tuple[int, int], seamless: str | None
) -> str | None:
    """Return why an image of a height and width cannot get exact seams; None if it does.

    Args:
        generators: The generators in the order in which they are applied.
        factors: By how much the output of each is larger than its input, once it is reduced.
        low: Height and width of the image.
        seamless: As for ``UpscaleOptions.seamless``.
    """
    if seamless is None:
        return None
    fold, scale = 1, Fraction(1)
    for generator, factor in zip(generators, factors, strict=True):
        fold = math.lcm(fold, (generator.unshuffle_factor / scale).numerator)
        scale *= Fraction(factor).limit_denominator()
    names = {"wrap-x": ("width",), "wrap-y": ("height",)}.get(seamless, ("height", "width"))
    odd = [name for name, side in zip(("height", "width"), low, strict=True) if name in names and side % fold]
    if not odd:
        return None
    return f"seams are not exact: the model needs multiples of {fold} px, and the {' and the '.join(odd)} is none"
