"""The blur kernels against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from esrgan.degradation import kernels


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
@pytest.mark.parametrize(("sigma", "beta"), [((0.2, 0.2), 1.0), ((2.0, 0.7), 1.0), ((1.5, 3.0), 0.5), ((3, 1), 2.5)])
def test_kernels_match_their_formulas(sigma: tuple[float, float], angle: float, beta: float) -> None:
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag(np.square(sigma)) @ turn.T)
    power = np.empty((9, 9))
    for row in range(9):
        for column in range(9):
            place = np.array([column - 4, row - 4])
            power[row, column] = (place @ inverse @ place) ** beta
    for made, expected in (
        (kernels.gaussian(9, sigma, angle, beta), np.exp(-power / 2)),
        (kernels.plateau(9, sigma, angle, beta), 1 / (1 + power)),
    ):
        np.testing.assert_allclose(made, expected / expected.sum(), rtol=1e-9, atol=1e-15)
        assert made.sum() == pytest.approx(1)


def test_kernels_rotate_by_the_angle() -> None:
    lying = kernels.gaussian(21, (3.0, 1.0))
    assert np.var(np.repeat(np.arange(21), np.rint(1e4 * lying.sum(0)).astype(int))) == pytest.approx(9, rel=0.01)
    np.testing.assert_allclose(kernels.gaussian(21, (3.0, 1.0), math.pi / 2), lying.T, atol=1e-12)
    falling = kernels.plateau(21, (3.0, 1.0), math.pi / 4, 1.5)
    assert falling[13, 13] > 2 * falling[7, 13]  # x and y rise together: to the right and down


@pytest.mark.parametrize("cutoff", [math.pi / 5, 1.7, math.pi])
def test_sinc_kernel_matches_its_definition_and_cutoff(cutoff: float) -> None:
    size, t = 15, np.linspace(0, math.pi, 2001)
    expected = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            x = cutoff * math.hypot(row - size // 2, column - size // 2)
            bessel = np.trapezoid(np.cos(t - x * np.sin(t)), t) / math.pi  # Bessel's integral for J₁
            expected[row, column] = cutoff**2 / (2 * math.pi) * (bessel / x if x else 0.5)
    made = kernels.sinc(size, cutoff)
    np.testing.assert_allclose(made, expected / expected.sum(), atol=1e-6)
    wide = kernels.sinc(201, 1.0)
    response = np.abs(np.fft.fft2(wide, (512, 512)))
    frequency = np.abs(np.fft.fftfreq(512)) * 2 * math.pi
    radius = np.hypot(*np.meshgrid(frequency, frequency))
    np.testing.assert_allclose(response[radius < 0.9], 1, atol=0.1)
    np.testing.assert_allclose(response[radius > 1.1], 0, atol=0.1)
