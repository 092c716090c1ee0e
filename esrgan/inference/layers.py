"""What the layers of a network in strips have in common, and skip connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from esrgan.models.rrdbnet import NEGATIVE_SLOPE

Activation = Callable[[Tensor], Tensor]  # may overwrite its input


def leaky_relu(lines: Tensor) -> Tensor:
    """Apply the activation of RRDBNet in place."""
    return F.leaky_relu(lines, NEGATIVE_SLOPE, inplace=True)


class Layer:
    """A layer that accepts its input in consecutive strips.

    Attributes:
        weights: The number of multiplications for each pixel that it computes.
        before: By how much it enlarges its input before it computes.
        after: By how much it enlarges what it has computed.
        lag: By how many lines what it has computed lags behind.
        kept_bytes: What it keeps between strips for each pixel of a line that it computes.
        work_bytes: What it needs for the work on each pixel of a strip that it computes.
        channels: The number of channels that it computes; 0 if it does not change them.
    """

    weights = lag = kept_bytes = work_bytes = channels = 0
    before = after = 1

    def push(self, strip: Tensor, is_last: bool) -> Tensor | None:
        """Accept the next lines of the input and return the output lines that they complete; None if there are none.

        After the last strip, all remaining lines are complete.
        """
        raise NotImplementedError


class SkipQueue:
    """A first-in, first-out queue of the lines of a skip connection."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.strips: deque[Tensor] = deque()

    def add_to(self, branch: Tensor, scaling: float) -> Tensor:
        """Take as many lines from the queue as the branch has, and add the scaled branch to them in float32."""
        result, first = torch.empty_like(branch, dtype=torch.float32), 0
        branch = branch.float()
        while first < branch.shape[self.dim]:
            strip = self.strips.popleft()
            lines = min(strip.shape[self.dim], branch.shape[self.dim] - first)
            if (left := strip.shape[self.dim] - lines) > 0:
                # A copy, because a view would keep the whole strip in memory.
                self.strips.appendleft(strip.narrow(self.dim, lines, left).clone())
            place = result.narrow(self.dim, first, lines)
            torch.add(strip.narrow(self.dim, 0, lines), branch.narrow(self.dim, first, lines), alpha=scaling, out=place)
            first += lines
        return result


class SkipStart(Layer):
    """Puts the lines that pass through into the queue of a skip connection, each channel the given number of times."""

    def __init__(self, skip: SkipQueue, copies: int = 1) -> None:
        self.skip, self.copies = skip, copies

    @override
    def push(self, strip: Tensor, is_last: bool) -> Tensor:
        self.skip.strips.append(strip.repeat_interleave(self.copies, 1) if self.copies > 1 else strip)
        return strip


class SkipEnd(Layer):
    """Adds the queued lines of a skip connection to those that pass through."""

    def __init__(self, skip: SkipQueue, scaling: float) -> None:
        self.skip, self.scaling = skip, scaling

    @override
    def push(self, strip: Tensor, is_last: bool) -> Tensor:
        return self.skip.add_to(strip, self.scaling)
