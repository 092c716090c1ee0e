"""Discriminators of other programs compute here what they compute there; other files are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm  # the older one, with which Real-ESRGAN's files were written

from esrgan.errors import WeightsError
from esrgan.models import RRDBNet, UNetDiscriminator, VGGDiscriminator
from esrgan.weights import DiscriminatorArchitecture, load_discriminator, save_file


class RealESRGANDiscriminator(nn.Module):
    """The network of Real-ESRGAN's netD files, written after its paper (arXiv 2107.10833, fig. 6)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, n, 3, 1, 1)
        widths = [
            (n, 2 * n),
            (2 * n, 4 * n),
            (4 * n, 8 * n),
            (8 * n, 4 * n),
            (4 * n, 2 * n),
            (2 * n, n),
            (n, n),
            (n, n),
        ]
        for i, (before, after) in enumerate(widths, start=1):
            kernel = (4, 2) if i < 4 else (3, 1)
            self.add_module(f"conv{i}", spectral_norm(nn.Conv2d(before, after, *kernel, 1, bias=False)))
        self.conv9 = nn.Conv2d(n, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        convs: dict[str, Any] = dict(self.named_children())

        def layer(i: int, x: Tensor) -> Tensor:
            out: Tensor = F.leaky_relu(convs[f"conv{i}"](x), 0.2)
            return out

        skips = [layer(0, x)]
        for i in (1, 2, 3):
            skips.append(layer(i, skips[-1]))
        x = skips.pop()
        for i in (4, 5, 6):
            x = layer(i, F.interpolate(x, scale_factor=2, mode="bilinear")) + skips.pop()
        out: Tensor = self.conv9(layer(8, layer(7, x)))
        return out


class BasicSRDiscriminator(nn.Module):
    """The network of BasicSR's VGG-style files for patches of 128 px, with which ESRGAN was trained."""

    def __init__(self, n: int) -> None:
        super().__init__()
        widths = [3, n, n, 2 * n, 2 * n, 4 * n, 4 * n, 8 * n, 8 * n, 8 * n, 8 * n]
        for i in range(10):
            kernel = (4, 2) if i % 2 else (3, 1)
            self.add_module(f"conv{i // 2}_{i % 2}", nn.Conv2d(widths[i], widths[i + 1], *kernel, 1, bias=i == 0))
            if i:
                self.add_module(f"bn{i // 2}_{i % 2}", nn.BatchNorm2d(widths[i + 1]))
        self.linear1, self.linear2 = nn.Linear(8 * n * 4 * 4, 100), nn.Linear(100, 1)

    def forward(self, x: Tensor) -> Tensor:
        layers: dict[str, Any] = dict(self.named_children())
        for i in range(10):
            x = layers[f"conv{i // 2}_{i % 2}"](x)
            x = F.leaky_relu(layers[f"bn{i // 2}_{i % 2}"](x) if i else x, 0.2)
        out: Tensor = self.linear2(F.leaky_relu(self.linear1(x.flatten(1)), 0.2))
        return out


def trained(network: nn.Module) -> nn.Module:
    """Change the buffers of a network, as training does."""
    torch.manual_seed(1)
    for _ in range(2):
        network(torch.rand(2, 3, 128, 128))
    return network.eval()


UNET = {"type": "unet", "num_features": 4}
BASICSR = {"type": "vgg_basicsr", "vgg_blk_ch": [2, 2, 4, 4, 8, 8, 16, 16, 16, 16], "fc_features": [100]}


@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"params": state}, lambda s: {"module." + k: s[k] for k in s}]
)
@pytest.mark.parametrize(
    ("make", "settings"), [(lambda: RealESRGANDiscriminator(4), UNET), (lambda: BasicSRDiscriminator(2), BASICSR)]
)
def test_foreign_discriminators_compute_the_same(tmp_path: Path, make: Any, settings: Any, wrap: Any) -> None:
    theirs = trained(make())
    torch.save(wrap(theirs.state_dict()), tmp_path / "netD.pth")
    architecture, state = load_discriminator(tmp_path / "netD.pth")
    assert architecture == DiscriminatorArchitecture(3, settings)
    ours = architecture.build()
    ours.load_state_dict(state)
    image = torch.rand(2, 3, 128, 128)
    torch.testing.assert_close(ours.eval()(image), theirs(image), rtol=1e-4, atol=1e-6)


OURS = VGGDiscriminator(3, (4, 4, 8), (5,))
VGG = DiscriminatorArchitecture(3, {"type": "vgg", "vgg_blk_ch": [4, 4, 8], "fc_features": [5]})


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_precision_and_format_do_not_matter(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in OURS.state_dict().items()}
    save_file(tmp_path / f"d{suffix}", {"params": state})
    architecture, loaded = load_discriminator(tmp_path / f"d{suffix}")
    assert architecture == VGG
    assert {name: value.dtype for name, value in loaded.items()} == {n: v.dtype for n, v in OURS.state_dict().items()}
    torch.testing.assert_close(loaded, OURS.state_dict(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "content",
    [
        {"g_model_state_dict": RRDBNet(4, 3, 4, 2, 1).state_dict(), "d_model_state_dict": OURS.state_dict()},
        {"params": RRDBNet(4, 3, 4, 2, 1).state_dict(), "checkpoint": {"stage": {"discriminator": OURS.state_dict()}}},
        {"netG": RRDBNet(4, 3, 4, 2, 1).state_dict(), "netD": OURS.state_dict()},
        {"G": RRDBNet(4, 3, 4, 2, 1).state_dict(), "D": OURS.state_dict(), "optimizer_D": {"state": {}}},
        {"model": RRDBNet(4, 3, 4, 2, 1).state_dict(), "discriminator_state_dict": OURS.state_dict()},
        {"d": {"lr": 1.0}, "D": {}, "netD": {"state_dict": OURS.state_dict()}},
    ],
)
def test_checkpoints_hold_a_discriminator(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "checkpoint.pth")
    architecture, state = load_discriminator(tmp_path / "checkpoint.pth")
    assert architecture == VGG
    torch.testing.assert_close(state, OURS.state_dict(), rtol=0, atol=0)


def test_grey_and_unet_discriminators_are_recognised(tmp_path: Path) -> None:
    save_file(tmp_path / "d.pth", dict(UNetDiscriminator(1, 2).state_dict()))
    architecture, _ = load_discriminator(tmp_path / "d.pth")
    assert architecture == DiscriminatorArchitecture(1, {"type": "unet", "num_features": 2})
    assert str(architecture) == '"img_channels": 1, "discriminator": {"type": "unet", "num_features": 2}'


LACKING = {name: value for name, value in OURS.state_dict().items() if name != "head.linear_out.bias"}
OLDEST = {"features.0.weight": torch.zeros(4, 3, 3, 3), "classifier.2.weight": torch.zeros(1, 100)}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (RRDBNet(4, 3, 4, 2, 1).state_dict(), "got an ESRGAN generator; pass it with -l"),
        (OLDEST, "expected a discriminator (U-Net or VGG style), got a VGG discriminator"),
        ({"lin0.model.1.weight": torch.zeros(1)}, "got LPIPS, an image metric"),
        (LACKING, "missing tensors: 1 (first: head.linear_out.bias)"),
        ({**OURS.state_dict(), "head.linear_out.bias": torch.tensor([torch.nan])}, "NaN or infinity in 1 of"),
        ({"features.block_0.conv.weight": torch.zeros(3)}, "expected a discriminator"),
    ],
)
def test_other_files_are_refused_with_what_they_are(tmp_path: Path, state: dict[str, Tensor], message: str) -> None:
    torch.save(dict(state), tmp_path / "d.pth")
    with pytest.raises(WeightsError) as caught:
        load_discriminator(tmp_path / "d.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'd.pth'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
