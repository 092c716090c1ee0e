import numpy as np
import pytest
import torch

from esrgan.losses import consistency_loss


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def expected_consistency_loss(fake, real, rows, columns):
    """Compute the mean over all blocks, whose borders are given, with NumPy."""
    blocks = [np.s_[:, :, top:bottom, left:right] for top, bottom in rows for left, right in columns]
    return np.mean([np.abs(fake[block].mean((2, 3)) - real[block].mean((2, 3))) for block in blocks])


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((60, 96), [(0, 30), (30, 60)], [(0, 32), (32, 64), (64, 96)]),
        ((40, 70), [(0, 40)], [(0, 35), (35, 70)]),
        ((101, 20), [(0, 34), (33, 68), (67, 101)], [(0, 20)]),  # a row between two blocks counts in both
        ((1, 2), [(0, 1)], [(0, 2)]),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_consistency_loss_is_the_distance_of_block_means(channels, size, rows, columns):
    fake, real = (images(2, channels, *size, seed=seed).double() for seed in range(2))
    expected = expected_consistency_loss(fake.numpy(), real.numpy(), rows, columns)
    assert consistency_loss(fake, real).item() == pytest.approx(expected, rel=1e-9)


def consistency_gradient(fake, real):
    fake = fake.clone().requires_grad_()
    consistency_loss(fake, real).backward()
    return fake.grad


@pytest.mark.parametrize("size", [(64, 64), (16, 24), (48, 80)])
def test_consistency_loss_sees_colours_but_not_texture(size):
    real = images(2, 3, *size).double()
    texture = (
        torch.arange(size[0])[:, None] + torch.arange(size[1])
    ).double() % 2 / 2 - 0.25  # a checkerboard with the mean 0
    shift = torch.tensor([0.004, 0.0, -0.004], dtype=torch.float64).view(3, 1, 1)  # about one level
    assert consistency_loss(real + texture, real).item() == pytest.approx(0, abs=1e-15)
    assert consistency_loss(real + texture + shift, real).item() == pytest.approx(0.008 / 3)
    zeros = torch.zeros_like(real)
    assert torch.equal(consistency_gradient(zeros + texture, zeros), zeros)
    gradient = consistency_gradient(zeros + texture + shift, zeros)
    assert torch.allclose(gradient, shift.sign().expand_as(real) / real.numel(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_consistency_loss_of_half_precision_is_computed_in_float32(dtype):
    fake, real = images(2, 3, 40, 70).to(dtype), images(2, 3, 40, 70, seed=1).to(dtype)
    expected = consistency_loss(fake.double(), real.double()).item()
    for a, b in ((fake, real), (fake.float(), real), (fake, real.float())):
        loss = consistency_loss(a, b)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=1e-5)
