"""Network interpolation: a blend of the weights of two generators (ESRGAN §3.4)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from esrgan.errors import WeightsError, one_line
from esrgan.weights import GeneratorFile


def interpolate(psnr_state: dict[str, Tensor], gan_state: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Compute θ = (1 − α)·θ_PSNR + α·θ_GAN.

    Args:
        psnr_state: Weights of the PSNR-oriented generator.
        gan_state: Weights of the GAN-trained one: the same names and shapes.
        alpha: 0 gives the first exactly, 1 the second.

    Raises:
        ValueError: If α is not within [0, 1].
        WeightsError: If names or shapes differ.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number from 0 to 1, got {alpha}")
    if alone := sorted(psnr_state.keys() ^ gan_state.keys()):
        raise WeightsError(
            f"interpolation: expected two state dicts of the same names, got {len(alone)} in one alone, "
            f"the first is {one_line(alone[0])}; esrgan.load_generator gives files of every origin the same names"
        )
    for name, value in psnr_state.items():
        if value.shape != gan_state[name].shape:
            shapes = f"{tuple(value.shape)} and {tuple(gan_state[name].shape)}"
            raise WeightsError(f"interpolation: {one_line(name)}: expected two tensors of one shape, got {shapes}")
    return {name: (1 - alpha) * value + alpha * gan_state[name] for name, value in psnr_state.items()}


def blend(psnr: GeneratorFile, gan: GeneratorFile, alpha: float) -> GeneratorFile:
    """Blend two generators, in whatever files they came.

    Raises:
        WeightsError: If they are not of one architecture.
        ValueError: If α is not within [0, 1].
    """
    if psnr.architecture != gan.architecture:
        raise WeightsError(
            f"{psnr.path} and {gan.path}: expected two generators of one architecture, "
            f"got {psnr.architecture} and {gan.architecture}; the GAN model must have been trained from the PSNR model"
        )
    state = interpolate(psnr.state, gan.state, alpha)
    return replace(gan, state=state, stage="training", alpha=alpha, hparams=gan.hparams or psnr.hparams)
