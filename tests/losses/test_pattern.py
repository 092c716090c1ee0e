import numpy as np
import pytest
import torch

from esrgan.losses import pattern_loss


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "period", "rows", "columns"),
    [
        ((64, 128), 4, [(0, 64)], [(0, 64), (64, 128)]),
        ((48, 100), 2, [(0, 48)], [(0, 50), (50, 100)]),
        ((12, 9), 3, [(0, 12)], [(0, 9)]),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_pattern_loss_is_the_distance_of_means_at_each_place(channels, size, period, rows, columns):
    fake, real = (images(2, channels, *size, seed=seed).double() for seed in range(2))
    distances = []
    for top, bottom in rows:
        for left, right in columns:
            block = (fake - real).numpy()[:, :, top:bottom, left:right]
            distances += [
                np.abs(block[:, :, i::period, j::period].mean((2, 3))) for i in range(period) for j in range(period)
            ]
    assert pattern_loss(fake, real, period).item() == pytest.approx(np.mean(distances), rel=1e-9)


def test_pattern_loss_sees_patterns_but_not_texture():
    real = images(2, 3, 64, 64).double()
    dots = torch.zeros(64, 64, dtype=torch.float64)
    dots[1::4, 2::4] = 0.16
    texture = torch.zeros(64, 64, dtype=torch.float64)  # of stripes of 8 px, so with the mean 0 at each place
    texture[:, :8], texture[:, 8:16] = 0.16, -0.16
    assert pattern_loss(real + texture, real, 4).item() == pytest.approx(0, abs=1e-12)
    assert pattern_loss(real + dots, real, 4).item() == pytest.approx(0.01)
    fake = dots.expand(2, 3, 64, 64).clone().requires_grad_()
    pattern_loss(fake, torch.zeros_like(fake), 4).backward()
    assert torch.allclose(fake.grad, (dots > 0).double().expand_as(fake) / fake.numel(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pattern_loss_of_half_precision_is_computed_in_float32(dtype):
    fake, real = images(2, 3, 40, 72).to(dtype), images(2, 3, 40, 72, seed=1).to(dtype)
    expected = pattern_loss(fake.double(), real.double(), 4).item()
    for a, b in ((fake, real), (fake.float(), real), (fake, real.float())):
        loss = pattern_loss(a, b, 4)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=1e-5)
