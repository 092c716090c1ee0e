"""Blend generators by network interpolation, and images by image interpolation (ESRGAN §3.4)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from esrgan.errors import WeightsError
from esrgan.images import ImageData
from esrgan.images.samples import row_blocks
from esrgan.pretrained import psnr_partner
from esrgan.text import format_count, one_line
from esrgan.weights import GeneratorFile, load_generator

_MAX_LISTED_LAYERS = 6  # in the error about different architectures


def interpolate(psnr_state: dict[str, Tensor], gan_state: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Return the interpolated weights (1 − α)·θ_PSNR + α·θ_GAN.

    Args:
        psnr_state: Weights of the PSNR-oriented generator.
        gan_state: Weights of the GAN-trained generator, with the same names and shapes.
        alpha: α in [0, 1]. With 0 the result equals the first state exactly, with 1 the second.

    Returns:
        New tensors under the same names.

    Raises:
        ValueError: If α is not within [0, 1].
        WeightsError: If names or shapes differ.

    Example:
        >>> import torch
        >>> from esrgan import interpolate
        >>> interpolate({"conv.bias": torch.tensor([0.0, 2.0])}, {"conv.bias": torch.tensor([4.0, 2.0])}, alpha=0.25)
        {'conv.bias': tensor([1., 2.])}
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number from 0 to 1, got {alpha}")
    alpha = float(alpha)  # 1 - alpha of a NumPy number would be rounded to its type
    if unpaired := sorted(psnr_state.keys() ^ gan_state.keys()):
        raise WeightsError(
            f"interpolation: expected two state dicts with the same names, got {len(unpaired)} in only one of them "
            f"(first: {one_line(unpaired[0])}); esrgan.load_generator converts files of any origin to the same names"
        )
    for name, value in psnr_state.items():
        if value.shape != gan_state[name].shape:
            shapes = f"{tuple(value.shape)} and {tuple(gan_state[name].shape)}"
            raise WeightsError(f"interpolation: {one_line(name)}: expected two tensors of the same shape, got {shapes}")
    return _weighted_sum([psnr_state, gan_state], [1 - alpha, alpha])


def blend(psnr: GeneratorFile, gan: GeneratorFile, alpha: float) -> GeneratorFile:
    """Blend a PSNR-oriented and a GAN-trained generator, from files of any format, by network interpolation.

    The result records α. If ``gan`` is itself a blend of the same two trainings, the recorded α is the share of the
    GAN-trained weights. If ``psnr`` is a blend, or ``gan`` is one without α, that share is unknown and α is None.

    Args:
        psnr: The PSNR-oriented generator.
        gan: The GAN-trained generator, of the same architecture.
        alpha: α in [0, 1]. With 0 the result has the weights of ``psnr``, with 1 those of ``gan``.

    Returns:
        The blend, with the configuration and ``outscale`` of ``gan``, or those of ``psnr`` that ``gan`` lacks.

    Raises:
        WeightsError: If the architectures differ; the message lists tensors that differ.
        ValueError: If α is not within [0, 1].

    Example:
        >>> from esrgan import blend, load_generator
        >>> psnr, gan = load_generator("esrgan-lite-psnr"), load_generator("esrgan-lite")
        >>> blend(psnr, gan, alpha=0.8).describe()
        'RRDBNet ×4 64/32/6, interpolated, α = 0.8'
    """
    _check_same_architecture(psnr, gan)
    state = interpolate(psnr.state, gan.state, alpha)
    known_share = gan.alpha if gan.is_blend else 1.0
    share = None if psnr.is_blend or known_share is None else alpha * known_share
    return _make_blend([psnr, gan], state, share)


def load_blend(
    model: str | Path,
    psnr: str | Path | None = None,
    alpha: float | None = None,
    load: Callable[[str | Path], GeneratorFile] = load_generator,
) -> GeneratorFile:
    """Load a generator, or its blend with a PSNR-oriented one.

    Args:
        model: A weight file or the name of a model.
        psnr: The generator to blend it with; None stands for the model's partner in the catalogue.
        alpha: The share of ``model``, as for ``blend``; None loads it alone.
        load: Reads a file; a function that keeps files in memory avoids that they are read again.

    Returns:
        The generator.

    Raises:
        WeightsError: If a file is not a generator, the model has no partner, or the two cannot be blended.
        ValueError: If α is not within [0, 1], or ``psnr`` is given without it.
    """
    if alpha is None and psnr is not None:
        raise ValueError("expected alpha, the share of the model in its blend with psnr, got none")
    if alpha is None:
        return load(model)
    return blend(load(psnr or psnr_partner(os.fspath(model))), load(model), alpha)


def mix(files: Sequence[GeneratorFile], shares: Sequence[float]) -> GeneratorFile:
    """Blend any number of generators: the weights of the result are Σ share·θ.

    Args:
        files: At least two generators of the same architecture.
        shares: One share in [0, 1] per generator; they must sum to 1.

    Returns:
        The blend, with the configuration and ``outscale`` of the last generator that has them.

    Raises:
        WeightsError: If the architectures differ; the message lists tensors that differ.
        ValueError: If the number, the range or the sum of the shares is wrong.
    """
    if len(files) != len(shares) or len(files) < 2:
        raise ValueError(
            "expected at least two generators and one share for each, "
            f"got {format_count(len(files), 'generator')} and {format_count(len(shares), 'share')}"
        )
    if not all(0 <= share <= 1 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(f"expected shares from 0 to 1 that sum to 1, got {', '.join(f'{x:g}' for x in shares)}")
    for other in files[1:]:
        _check_same_architecture(files[0], other)
    state = _weighted_sum([file.state for file in files], [float(share) for share in shares])
    return _make_blend(files, state, None)


def interpolate_images(psnr: ImageData, gan: ImageData, alpha: float) -> ImageData:
    """Blend two images, such as the outputs of two models: (1 − α)·PSNR + α·GAN.

    Args:
        psnr: The first image.
        gan: The second image, with the same number of frames, size, channels and depth.
        alpha: α in [0, 1]. With 0 the result has the pixels of ``psnr``, with 1 those of ``gan``.

    Returns:
        The blend, rounded to the nearest level for integer pixels, with the metadata of ``gan``. The colours of a pixel
        count by its alpha. If the colour spaces differ, a note says so.

    Raises:
        ValueError: If α is not within [0, 1], or the images differ in size, channels, depth or number of frames.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number from 0 to 1, got {alpha}")
    alpha = float(alpha)  # 1 - alpha of a NumPy number would be rounded to its type
    kinds = [[(frame.shape, str(frame.dtype)) for frame in each.frames] for each in (psnr, gan)]
    if kinds[0] != kinds[1]:
        differing = next((number for number, pair in enumerate(zip(*kinds, strict=False)) if pair[0] != pair[1]), 0)
        got = [(len(kind), *kind[differing]) for kind in kinds]
        raise ValueError(
            f"expected two images with the same number of frames, shape and depth, got {got[0]} and {got[1]}"
        )
    frames = []
    for pair in zip(psnr.frames, gan.frames, strict=True):
        result = np.empty_like(pair[1])
        for block, one, other in zip(row_blocks(result), *map(row_blocks, pair), strict=True):
            block[...] = _blend_pixels(one, other, alpha, gan.base_channels - 1 if gan.has_alpha else None)
        frames.append(result)
    note = "the images have different colour spaces; their values were blended as if both had that of the second"
    notes = (note,) if _colour_space(psnr) != _colour_space(gan) else ()
    return replace(gan, frames=tuple(frames), notes=(*gan.notes, *notes))


def _blend_pixels(
    one: NDArray[Any], other: NDArray[Any], alpha: float, alpha_channel: int | None
) -> NDArray[np.floating[Any]]:
    share: Any = alpha
    if alpha_channel is not None:
        share = np.full(one.shape, alpha)
        first, second = (1 - alpha) * one[..., alpha_channel].astype(np.float64), alpha * other[..., alpha_channel]
        is_visible = first + second > 0
        share[is_visible, :alpha_channel] = (second[is_visible] / (first + second)[is_visible])[:, None]
    with np.errstate(invalid="ignore"):
        blended = (1 - share) * one.astype(np.float64) + share * other
    # 0 times infinity is NaN.
    blended = np.where(share == 0, one, np.where(share == 1, other, blended))
    return np.floor(blended + 0.5) if one.dtype.kind == "u" else blended


def _colour_space(image: ImageData) -> tuple[bytes | None, list[tuple[str, Any]]]:
    return image.icc_profile, [(str(block.key), block.content) for block in image.colour_blocks]


def _make_blend(files: Sequence[GeneratorFile], state: dict[str, Tensor], alpha: float | None) -> GeneratorFile:
    """Return the blend of the files with these weights; it has a licence only if all files have the same one."""
    licences = {file.licence for file in files}
    return replace(
        files[-1],
        state=state,
        stage="training",
        alpha=alpha,
        hparams=next((file.hparams for file in reversed(files) if file.hparams), {}),
        licence=licences.pop() if len(licences) == 1 else None,
        outscale=next((file.outscale for file in reversed(files) if file.outscale), None),
        is_blend=True,
        known=None,
    )


def _weighted_sum(states: Sequence[dict[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    # A share of 0 is left out, because 0 times infinity is NaN.
    first, *others = (pair for pair in zip(states, shares, strict=True) if pair[1])
    result = {name: first[1] * value for name, value in first[0].items()}
    for state, share in others:
        result = {name: value + share * state[name] for name, value in result.items()}
    return result


def _check_same_architecture(one: GeneratorFile, other: GeneratorFile) -> None:
    if one.architecture == other.architecture:
        return
    layers = []
    for name in {**one.state, **other.state}:
        shapes = [str(tuple(state[name].shape)) if name in state else "none" for state in (one.state, other.state)]
        if shapes[0] != shapes[1]:
            layers.append(f"{name} ({' and '.join(shapes)})")
    differing = f"; tensors that differ: {', '.join(layers[:_MAX_LISTED_LAYERS])}" if layers else ""
    more = f" and {len(layers) - _MAX_LISTED_LAYERS} more" if len(layers) > _MAX_LISTED_LAYERS else ""
    raise WeightsError(
        f"{one.path} and {other.path}: expected generators of the same architecture, got {one.architecture} and "
        f"{other.architecture}; a GAN model must have been trained from its PSNR model{differing}{more}"
    )
