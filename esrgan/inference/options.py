"""Options of upscaling: the size of the output, and what alpha, edges and colours mean."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from esrgan.errors import EsrganError
from esrgan.text import one_line

TRANSPARENCIES = ("colour", "data", "hard")
SEAMLESS = ("wrap", "wrap-x", "wrap-y", "mirror")
COLOR_FIXES = ("mean", "low")
MAX_FACTOR = 64
MAX_SIZE = 1_000_000_000  # of a side in pixels, or of an area in megapixels; images are limited elsewhere
_SIZES = ("outscale", "width", "height", "long_side", "megapixels")


def to_number(value: Any) -> Any:
    """Return a number of NumPy, which may have few bits and overflow, as one of Python; others stay."""
    return value.item() if isinstance(value, np.number) else value


@dataclass(frozen=True)
class UpscaleOptions:
    """How ``Upscaler`` processes images. At most one of the first five may be set.

    Attributes:
        outscale: Upscaling factor of the output.
        width: Width of the output in pixels; the height follows.
        height: Height of the output in pixels; the width follows.
        long_side: Longer side of the output in pixels; the other follows.
        megapixels: Millions of pixels of the output, up to rounding of its sides.
        self_ensemble: Average the outputs for the eight flips and quarter turns of the image (EDSR §3.3, arXiv
            1707.02921). This is eight times the work and gains a few tenths of a dB.
        transparency: What alpha means. "colour": the pixel is see-through; colours under invisible pixels are
            continued from visible ones. "data": alpha is a fourth channel of its own, as in game textures that pack
            gloss or height into it; neither it nor the colours affect each other. "hard": as "colour", and every
            sample of the upscaled alpha becomes 0 or opaque, whichever is nearer, as for leaves and fences that are
            cut out. An alpha that is the same everywhere is always kept. A network with four channels processes RGB
            and alpha together, except as "data".
        seamless: Continue the image beyond its edges, so that the output can be repeated without seams: "wrap" by its
            opposite edge, in both directions or only one ("wrap-x", "wrap-y"), "mirror" by its mirror image.
        color_fix: Remove the drift of a network's colours: "mean" gives each channel of the output the mean of the
            input, "low" its coarse colours (a Gaussian of σ 8 px), which also removes patches of other colour.

    Raises:
        ValueError: If a value is out of range or unknown, or several sizes are set.
    """

    outscale: float | None = None
    width: int | None = None
    height: int | None = None
    long_side: int | None = None
    megapixels: float | None = None
    self_ensemble: bool = False
    transparency: str = "colour"
    seamless: str | None = None
    color_fix: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.self_ensemble, bool):
            raise ValueError(f"self_ensemble: expected True or False, got {self.self_ensemble!r}")
        sizes = {name: to_number(value) for name in _SIZES if (value := getattr(self, name)) is not None}
        for name, value in sizes.items():
            object.__setattr__(self, name, value)
            kind: type = numbers.Real if name in ("outscale", "megapixels") else numbers.Integral
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{name}: expected {'a' if kind is numbers.Real else 'a whole'} number, got {value!r}")
        if len(sizes) > 1:
            raise ValueError(f"expected one size, got {' and '.join(sizes)}")
        if self.outscale is not None and not 0 < self.outscale <= MAX_FACTOR:
            raise ValueError(f"outscale: expected a number above 0 and at most {MAX_FACTOR}, got {self.outscale}")
        for name, value in sizes.items():
            if not 0 < value <= MAX_SIZE:
                raise ValueError(
                    f"{name}: expected a number above 0 and at most {MAX_SIZE:,}, got {one_line(str(value), 30)}"
                )
        for name, known in (("transparency", TRANSPARENCIES), ("seamless", SEAMLESS), ("color_fix", COLOR_FIXES)):
            if (value := getattr(self, name)) is not None and value not in known:
                raise ValueError(f"{name}: expected {', '.join(known)}, got {value}")

    @property
    def has_size(self) -> bool:
        """Whether the size of the output is set."""
        return any(getattr(self, name) is not None for name in _SIZES)

    @property
    def wraps(self) -> tuple[bool, bool]:
        """Whether the image is repeated to the left and right, and above and below."""
        return self.seamless in ("wrap", "wrap-x"), self.seamless in ("wrap", "wrap-y")

    def with_outscale(self, factor: float) -> UpscaleOptions:
        """Return the same options with another size."""
        return replace(self, outscale=factor, width=None, height=None, long_side=None, megapixels=None)

    def output_size(self, height: int, width: int, scale: float) -> tuple[int, int]:
        """Return the height and width of the output for an image of a size in pixels.

        Args:
            height: Height of the image.
            width: Width of the image.
            scale: The factor if no size is set.
        """
        height, width = int(height), int(width)
        factor = scale
        if self.outscale is not None:
            factor = self.outscale
        elif self.width is not None:
            factor = self.width / width
        elif self.height is not None:
            factor = self.height / height
        elif self.long_side is not None:
            factor = self.long_side / max(height, width)
        elif self.megapixels is not None:
            factor = (self.megapixels * 1e6 / (height * width)) ** 0.5
        return max(round(height * factor), 1), max(round(width * factor), 1)


def count_passes(factors: Sequence[float], last_own: float, factor: float) -> int:
    """Return how often some networks have to be applied, one after the other, to reach a factor.

    Args:
        factors: By how much the output of each network is larger than its input, once it is reduced.
        last_own: By how much that of the last one is larger before it is reduced, which is left out at the end.
        factor: By how much the result is to be larger than the image.

    Raises:
        EsrganError: If it cannot be reached, or is beyond ``MAX_FACTOR``.
    """
    scale, last_reduction, passes = math.prod(factors), last_own / factors[-1], 1
    # Rounding of an odd side can ask for a little more than the network's scale; this is then left to the resizing.
    while scale**passes * last_reduction * 1.01 < factor:
        if scale <= 1:
            raise EsrganError(f"a ×{scale:g} model cannot upscale by {factor:.3g}; add a model that upscales")
        passes += 1
        if factor > MAX_FACTOR:
            raise EsrganError(f"upscaling by {factor:.3g} is beyond the limit of {MAX_FACTOR}; use a smaller size")
    return passes
