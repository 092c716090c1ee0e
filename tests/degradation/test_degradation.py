"""Real-world degradation: its parts against other implementations and their statistics, and training on it."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from torch import Tensor

from esrgan import images
from esrgan.cli import main
from esrgan.config import Config, load
from esrgan.config.fields import Degradation as Settings
from esrgan.degradation import Degradation, filters, kernels, settings
from esrgan.degradation.filters import Pictures
from esrgan.degradation.jpeg import compress
from esrgan.degradation.settings import Noise, Round
from esrgan.training import TrainOptions, loop, train
from esrgan.training.stages import AdversarialStage, PixelStage
from esrgan.weights import load_file

pytestmark = pytest.mark.usefixtures("own_signals")

ROOT = Path(__file__).parent.parent.parent
PUBLISHED = Settings().model_dump()


def photo(height: int, width: int) -> Tensor:
    """Give the upper left corner of a photograph, (1, 3, H, W) of 8-bit levels in [0, 1]."""
    image = np.array(Image.open(ROOT / "tests/assets/photo.png").convert("RGB"))[:height, :width]
    assert image.shape == (height, width, 3)
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def canvas(pictures: list[Tensor], beyond: float) -> Pictures:
    """Put (1, C, H, W) pictures of several sizes into one tensor, over a value."""
    sizes = [(picture.shape[2], picture.shape[3]) for picture in pictures]
    height, width = (max(size) for size in zip(*sizes, strict=True))
    pixels = torch.full((len(pictures), pictures[0].shape[1], height, width), beyond)
    for into, picture, (h, w) in zip(pixels, pictures, sizes, strict=True):
        into[:, :h, :w] = picture[0]
    return Pictures(pixels, sizes)


def cut(pictures: Pictures) -> list[Tensor]:
    return [pixels[None, :, :h, :w] for pixels, (h, w) in zip(pictures.pixels, pictures.sizes, strict=True)]


# Kernels


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
@pytest.mark.parametrize(("sigma", "beta"), [((0.2, 0.2), 1.0), ((2.0, 0.7), 1.0), ((1.5, 3.0), 0.5), ((3, 1), 2.5)])
def test_kernels_are_their_formulas(sigma: tuple[float, float], angle: float, beta: float) -> None:
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


def test_a_kernel_turns() -> None:
    lying = kernels.gaussian(21, (3.0, 1.0))
    assert np.var(np.repeat(np.arange(21), np.rint(1e4 * lying.sum(0)).astype(int))) == pytest.approx(9, rel=0.01)
    np.testing.assert_allclose(kernels.gaussian(21, (3.0, 1.0), math.pi / 2), lying.T, atol=1e-12)
    falling = kernels.plateau(21, (3.0, 1.0), math.pi / 4, 1.5)
    assert falling[13, 13] > 2 * falling[7, 13]  # x and y rise together: to the right and down


@pytest.mark.parametrize("cutoff", [math.pi / 5, 1.7, math.pi])
def test_sinc_kernel_is_its_definition_and_cuts_off(cutoff: float) -> None:
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


# Filters


def test_blur_is_correlation_with_mirrored_edges_whatever_is_beyond_a_picture() -> None:
    pictures = [photo(30, 41), photo(17, 9), photo(3, 40), photo(1, 2)]
    random = np.random.default_rng(0)
    own = [kernels.gaussian(21, tuple(random.uniform(0.5, 4, 2)), random.uniform(0, 3)) for _ in pictures]
    stacked = torch.tensor(np.stack(own), dtype=torch.float32)
    for beyond in (0.0, 1e3):
        blurred = cut(filters.blur(canvas(pictures, beyond), stacked))
        for made, picture, kernel in zip(blurred, pictures, own, strict=True):
            expected = [ndimage.correlate(channel, kernel, mode="mirror") for channel in picture[0].double().numpy()]
            np.testing.assert_allclose(made[0], expected, atol=1e-6 * max(1, beyond))


def test_resizing_gives_each_picture_its_own_size() -> None:
    pictures = [photo(30, 41), photo(17, 9), photo(20, 20)]
    sizes, modes = [(7, 50), (25, 9), (20, 20)], ["area", "bicubic", "bilinear"]
    resized = filters.resize(canvas(pictures, 9.0), sizes, modes, (60, 50))
    assert resized.pixels.shape == (3, 3, 60, 50)
    for made, picture, size, mode in zip(cut(resized), pictures, sizes, modes, strict=True):
        torch.testing.assert_close(made, F.interpolate(picture, size=size, mode=mode), rtol=0, atol=0)


def noisy(picture: Tensor, noise: Noise, seed: int = 0) -> Tensor:
    pictures = Pictures(picture, [(picture.shape[2], picture.shape[3])])
    return filters.add_noise(pictures, [noise], [torch.Generator().manual_seed(seed)]).pixels


@pytest.mark.parametrize("is_gray", [False, True])
def test_gaussian_noise_has_its_deviation(is_gray: bool) -> None:
    noise = noisy(torch.full((1, 3, 200, 200), 0.5), Noise(True, 20.0, is_gray))[0] - 0.5
    assert noise.std().item() * 255 == pytest.approx(20, rel=0.02)
    assert abs(noise.mean().item()) * 255 < 0.3
    correlation = np.corrcoef(noise.flatten(1))[0, 1]
    assert (correlation > 0.999) if is_gray else (abs(correlation) < 0.02)


@pytest.mark.parametrize("is_gray", [False, True])
@pytest.mark.parametrize("count", [2, 5, 200])
def test_poisson_noise_has_the_variance_of_the_light(is_gray: bool, count: int) -> None:
    levels = torch.arange(20, 20 + count).repeat(60_000 // count + 1)[:60_000].view(1, 1, 200, 300)
    picture = levels.expand(-1, 3, -1, -1) / 255
    noise = noisy(picture, Noise(False, 0.3, is_gray)) - picture
    photons = 2 ** math.ceil(math.log2(count))
    expected = 0.3**2 * picture.mean().item() / photons
    is_free = (picture + noise > 0) & (picture + noise < 1)
    assert is_free.float().mean() > 0.95 or count < 10
    if count > 10:  # with a few photons noise is clipped
        assert noise[is_free].var().item() == pytest.approx(expected, rel=0.05)
        assert abs(noise[is_free].mean().item()) < 0.005
    steps = noise[:, :, 0, 0] + picture[:, :, 0, 0] * 0.3  # multiples of one photon's light
    assert torch.allclose((steps / 0.3 * photons).round(), steps / 0.3 * photons, atol=1e-2) or count < 10
    assert torch.equal(noise[:, 0], noise[:, 1]) == is_gray


def test_sharpening_is_unsharp_masking_with_opencv() -> None:
    high = photo(70, 90)
    image = high[0].permute(1, 2, 0).numpy()
    detail = image - cv2.GaussianBlur(image, (51, 51), 0, borderType=cv2.BORDER_REFLECT_101)
    mask = cv2.GaussianBlur((np.abs(detail) * 255 > 10).astype(np.float32), (51, 51), 0)
    expected = mask * np.clip(image + 0.5 * detail, 0, 1) + (1 - mask) * image
    made = filters.sharpened(high)[0].permute(1, 2, 0).numpy()
    assert 0.01 < mask.mean() < 0.99
    assert np.abs(made - expected).max() < 1e-3  # OpenCV rounds its taps
    assert np.abs(made - image).max() > 0.02
    flat = torch.full((2, 1, 8, 12), 0.25)
    torch.testing.assert_close(filters.sharpened(flat), flat)


# JPEG


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sizes", [[(72, 96)] * 6, [(72, 96), (61, 47), (32, 33), (16, 16), (9, 90), (1, 1)]])
def test_jpeg_is_that_of_libjpeg(sizes: list[tuple[int, int]], channels: int) -> None:
    """Its whole-number arithmetic decides some halves otherwise, each for a block: within ½ level in the mean."""
    qualities = [5, 30, 50, 75, 95, 100]
    pictures = [photo(*size)[:, :channels] for size in sizes]
    compressed = cut(compress(canvas(pictures, 7.0), qualities))
    for made, picture, quality in zip(compressed, pictures, qualities, strict=True):
        pixels = (picture[0] * 255).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(
            file, "JPEG", quality=quality, subsampling="4:2:0"
        )
        expected = np.array(Image.open(file)).reshape(pixels.shape)
        difference = np.abs((made[0] * 255).permute(1, 2, 0).numpy() - expected)
        assert torch.equal(made, cut(compress(canvas([picture], 7.0), [quality]))[0])  # whatever is beside it
        assert difference.mean() < 0.5, quality
        assert (difference > 2).mean() < 0.04, quality
    assert torch.equal(compressed[0] * 255, (compressed[0] * 255).round())


# What is drawn


def published(name: str) -> Round:
    return Round(**PUBLISHED[name])


@pytest.mark.parametrize("name", ["first", "second"])
def test_draws_have_the_published_chances_and_ranges(name: str) -> None:
    chances, count = published(name), 2500
    draws = [chances.draw(settings.generator(0, position)) for position in range(count)]

    def share(condition: Callable[[settings.DrawnRound], bool]) -> Any:
        return pytest.approx(sum(map(condition, draws)) / count, abs=0.03)

    assert chances.resize_prob[0] == share(lambda draw: draw.factor > 1)
    assert chances.resize_prob[1] == share(lambda draw: draw.factor < 1)
    assert chances.blur_prob == share(lambda draw: draw.kernel[10, 10] < 0.9999 or draw.kernel[10, 11] != 0)
    assert chances.blur_prob * chances.sinc_prob == share(lambda draw: draw.kernel.min() < -1e-4)
    assert chances.gaussian_noise_prob == share(lambda draw: draw.noise.is_gaussian)
    assert chances.gray_noise_prob == share(lambda draw: draw.noise.is_gray)
    assert share(lambda draw: draw.mode == "area") == 1 / 3
    for values, limits in (
        ([draw.factor for draw in draws], chances.resize_range),
        ([draw.quality for draw in draws], chances.jpeg_range),
        ([draw.noise.strength for draw in draws if draw.noise.is_gaussian], chances.noise_range),
        ([draw.noise.strength for draw in draws if not draw.noise.is_gaussian], chances.poisson_scale_range),
    ):
        assert limits[0] <= min(values) < limits[0] + 0.05 * (limits[1] - limits[0])
        assert limits[1] >= max(values) > limits[1] - 0.05 * (limits[1] - limits[0])
    assert all(draw.kernel.shape == (21, 21) for draw in draws)
    np.testing.assert_allclose([draw.kernel.sum() for draw in draws], 1)
    assert all(np.allclose(draw.kernel, draw.kernel[::-1, ::-1], atol=1e-12) for draw in draws)


def test_each_kind_of_kernel_is_drawn_as_often_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def note(kind: str) -> Callable[..., Any]:
        def make(size: int, axes: tuple[float, float], angle: float, beta: float) -> Any:
            assert size in range(7, 22, 2)
            drawn.append((kind, axes[0] == axes[1], beta))
            return kernels.pulse(size)

        return make

    monkeypatch.setattr(settings.kernels, "gaussian", note("gaussian"))
    monkeypatch.setattr(settings.kernels, "plateau", note("plateau"))
    for position in range(4000):
        published("first").draw(settings.generator(0, position))
    kinds = Counter((kind if kind == "plateau" or beta == 1 else "generalized", iso) for kind, iso, beta in drawn)
    order = [(kind, is_isotropic) for kind in ("gaussian", "generalized", "plateau") for is_isotropic in (True, False)]
    shares = [kinds[kind] / len(drawn) for kind in order]
    assert shares == pytest.approx([0.45, 0.25, 0.12, 0.03, 0.12, 0.03], abs=0.02)
    betas = [beta for kind, _, beta in drawn if kind == "gaussian" and beta != 1]
    assert 0.5 <= min(betas) < 0.6
    assert 3.8 < max(betas) <= 4
    assert np.mean(np.array(betas) < 1) == pytest.approx(0.5, abs=0.06)


# The whole process


def batch(count: int, height: int = 64, width: int = 48) -> Tensor:
    whole = photo(72, 96)
    return torch.cat([whole[:, :, i : i + height, 3 * i : 3 * i + width] for i in range(count)])


def test_a_patch_is_degraded_by_seed_and_position_alone() -> None:
    degradation, high = Degradation(4, 5, **PUBLISHED), batch(6)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  the global state must not matter
    before = torch.get_rng_state()
    low, sharp = degradation(high, 10)
    assert torch.equal(torch.get_rng_state(), before)
    assert low.shape == (6, 3, 16, 12)
    torch.testing.assert_close((low * 255).round() / 255, low, rtol=0, atol=0)
    assert low.min() >= 0
    assert low.max() <= 1
    assert torch.equal(sharp, filters.sharpened(high))
    for parts in ([2, 4], [1] * 6):  # two processes, or one by one
        place, found = 0, []
        for part in parts:
            found.append(degradation(high[place : place + part], 10 + place)[0])
            place += part
        assert torch.equal(torch.cat(found), low)
    same = degradation(high[:1].expand(40, -1, -1, -1), 0)[0]
    assert len({tuple(each.flatten().tolist()) for each in same}) == 40
    assert not torch.equal(Degradation(4, 6, **PUBLISHED)(high, 10)[0], low)


def test_the_order_of_the_steps() -> None:
    """A patch at a time, with SciPy's filter and PyTorch's resizing."""
    # Poisson noise is another one altogether after one level that was rounded otherwise.
    gaussian = {name: PUBLISHED[name] | {"gaussian_noise_prob": 1.0} for name in ("first", "second")}
    degradation, high = Degradation(4, 1, **PUBLISHED | gaussian), batch(8)
    low = degradation(high, 0)[0]

    def blurred(picture: Tensor, kernel: Any) -> Tensor:
        channels = [ndimage.correlate(channel, kernel, mode="mirror") for channel in picture[0].double().numpy()]
        return torch.tensor(np.stack(channels), dtype=torch.float32)[None]

    def jpeg(picture: Tensor, quality: int) -> Tensor:
        return compress(Pictures(picture, [(picture.shape[2], picture.shape[3])]), [quality]).pixels

    orders = set()
    for position in range(8):
        drawn = degradation._draw(position)
        generator = torch.Generator().manual_seed(drawn.noise_seed)
        picture = filters.sharpened(high[position : position + 1])
        for each, (height, width) in ((drawn.first, (64, 48)), (drawn.second, (16, 12))):
            size = (max(1, int(height * each.factor)), max(1, int(width * each.factor)))
            picture = F.interpolate(blurred(picture, each.kernel), size, mode=each.mode)
            picture = filters.add_noise(Pictures(picture, [size]), [each.noise], [generator]).pixels
            if each is drawn.first or not drawn.is_jpeg_last:
                picture = jpeg(picture, each.quality)
        picture = blurred(F.interpolate(picture, (16, 12), mode=drawn.last_mode), drawn.last_kernel)
        if drawn.is_jpeg_last:
            picture = jpeg(picture, drawn.second.quality)
        difference = (picture[0].clamp(0, 1) - low[position]).abs() * 255
        assert difference.mean() < 1, position
        orders.add(drawn.is_jpeg_last)
    assert orders == {True, False}


@pytest.mark.parametrize(("scale", "channels", "size"), [(1, 3, 24), (2, 1, 40), (4, 1, 8), (8, 3, 8), (4, 3, 36)])
def test_patches_of_every_scale_size_and_channels(scale: int, channels: int, size: int) -> None:
    high = batch(16, size, size)[:, :channels]
    low, sharp = Degradation(scale, 0, **PUBLISHED)(high, 0)
    assert low.shape == (16, channels, size // scale, size // scale)
    assert sharp.shape == high.shape
    assert low.isfinite().all()


def test_lr_patches_are_in_place() -> None:
    """The mean of many degradations is the picture, reduced: nothing is shifted, mirrored or miscoloured."""
    high = batch(1, 64, 64)
    low = Degradation(4, 0, **PUBLISHED | {"gt_usm": False})(high.expand(200, -1, -1, -1), 0)[0].mean(0)
    reduced = F.interpolate(
        filters.blur(Pictures(high, [(64, 64)]), gaussian_like_the_mean()).pixels, (16, 16), mode="area"
    )[0]
    errors = {
        (down, right): (low - reduced.roll((down, right), (1, 2)))[:, 2:-2, 2:-2].abs().mean().item()
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    assert min(errors, key=lambda shift: errors[shift]) == (0, 0)
    assert errors[0, 0] < 0.04
    per_channel = (low - reduced)[:, 2:-2, 2:-2].mean((1, 2))
    assert per_channel.abs().max() < 0.02


def gaussian_like_the_mean() -> Tensor:
    return torch.tensor(kernels.gaussian(21, (4.0, 4.0)), dtype=torch.float32)[None]


def test_without_chances_nothing_but_the_resizing_and_jpeg_is_left() -> None:
    none = {"blur_prob": 0.0, "resize_prob": (0.0, 0.0, 1.0), "gaussian_noise_prob": 1.0, "noise_range": (1e-6, 1e-6)}
    rounds = {name: PUBLISHED[name] | none | {"jpeg_range": (100, 100)} for name in ("first", "second")}
    high = batch(8)
    low, same = Degradation(4, 0, **rounds, final_sinc_prob=0.0, gt_usm=False)(high, 0)
    assert torch.equal(same, high)
    reduced = [F.interpolate(high, (16, 12), mode=mode) for mode in ("area", "bilinear", "bicubic")]
    distances = torch.stack([(low - each).abs().mean((1, 2, 3)) for each in reduced]).amin(0)
    assert distances.max() < 0.02


# Training


def test_rank_and_step_give_the_position(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate({"batch_size": 4})
    seen = []

    class Data:
        degradation = staticmethod(lambda high, position: seen.append((len(high), position)) or (high, high))

    class Run:
        device = torch.device("cpu")

    Run.config = config
    part = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    monkeypatch.setattr(loop.distributed, "rank", lambda: 1)
    loop._on_device((part, part), Run, Data, 7)
    assert seen == [(2, 7 * 4 + 2)]


def degraded(tiny: Callable[..., dict[str, Any]]) -> Config:
    stage = {"num_steps": 3, "degradation": {"second": {"blur_prob": 0.5}}}
    return Config.model_validate(tiny(pretraining=stage, training=stage))


def trained(folder: Path) -> dict[str, Any]:
    result = {}
    for path in sorted(folder.glob("*.pth")):
        content = load_file(path)
        result[path.name.partition("_RRDB_")[2]] = content["params"] | content.get("params_ema", {})
    return result


def test_both_stages_train_and_resume_exactly(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = degraded(tiny)
    lows: list[Tensor] = []
    for kind in (PixelStage, AdversarialStage):

        def step(self: Any, low: Tensor, high: Tensor, number: int, target: Tensor, original: Any = kind.step) -> Any:
            lows.append(low)
            return original(self, low, high, number, target)

        monkeypatch.setattr(kind, "step", step)

    def run(name: str, **options: Any) -> None:
        assert train(config, TrainOptions("tiny", tmp_path / name, device="cpu", **options))

    run("whole")
    whole, lows[:] = list(lows), []
    for steps in (1, 2, 3):  # each ends a stage early, as an interruption does; the next goes on
        run("parts", stage="pretraining", max_steps=steps, resume=True)
    for steps in (1, 3):
        run("parts", stage="training", max_steps=steps, resume=True)
    assert len(whole) == len(lows) == 6
    assert all(torch.equal(one, other) for one, other in zip(whole, lows, strict=True))
    assert len({tuple(low.flatten().tolist()) for low in whole}) == 6
    one, other = (trained(tmp_path / name)["ESRGAN_x4.pth"] for name in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_dry_run_degrades_too(tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        original = Degradation.__call__
        patch.setattr(Degradation, "__call__", lambda self, *args: calls.append(args[1]) or original(self, *args))
        assert train(degraded(tiny), TrainOptions("tiny", tmp_path, device="cpu", dry_run=True))
    assert calls == [0, 2, 0, 2]  # positions of two steps of each stage


# The configuration and the preview


def test_the_shipped_configuration_has_the_published_settings() -> None:
    config = load(ROOT / "configs/real_esrgan_x4.json")
    assert config.pretraining.degradation == config.training.degradation == Settings()
    assert (config.batch_size, config.scale_factor, config.ema_decay) == (48, 4, 0.999)
    assert (config.pretraining.num_steps, config.training.num_steps) == (1_000_000, 400_000)
    assert (config.pretraining.lr, config.training.g_lr, config.training.d_lr) == (2e-4, 1e-4, 1e-4)
    assert config.pretraining.cr_patch_size == config.training.cr_patch_size == (256, 256)
    assert config.pretraining.betas == config.training.betas == (0.9, 0.99)
    assert config.training.g_adversarial_loss_scaling == 0.1
    assert config.training.g_content_loss_scaling == 1.0
    assert config.perceptual_loss.layer_weights == {
        "conv1_2": 0.1,
        "conv2_2": 0.1,
        "conv3_4": 1,
        "conv4_4": 1,
        "conv5_4": 1,
    }
    assert config.discriminator.type == "unet"
    generator = config.generator
    assert (generator.rrdb_channels, generator.growth_channels, generator.num_basic_blocks) == (64, 32, 23)
    # Of Real-ESRGAN's options/train_realesrgan_x4plus.yml, a second time on purpose.
    first, second = PUBLISHED["first"], PUBLISHED["second"]
    assert (first["blur_sigma"], second["blur_sigma"]) == ((0.2, 3), (0.2, 1.5))
    assert (first["resize_prob"], second["resize_prob"]) == ((0.2, 0.7, 0.1), (0.3, 0.4, 0.3))
    assert (first["resize_range"], second["resize_range"]) == ((0.15, 1.5), (0.3, 1.2))
    assert (first["noise_range"], second["noise_range"]) == ((1, 30), (1, 25))
    assert (first["poisson_scale_range"], second["poisson_scale_range"]) == ((0.05, 3), (0.05, 2.5))
    assert (first["blur_prob"], second["blur_prob"], PUBLISHED["final_sinc_prob"]) == (1, 0.8, 0.8)
    for each in (first, second):
        assert each["kernel_prob"] == (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
        assert (each["sinc_prob"], each["gaussian_noise_prob"], each["gray_noise_prob"]) == (0.1, 0.5, 0.4)
        assert (each["betag_range"], each["betap_range"], each["jpeg_range"]) == ((0.5, 4), (1, 2), (30, 95))


def prepare(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["prepare", "--preview", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_preview(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = prepare(capsys, photos / "train")
    assert (code, err) == (0, "")
    sheet = images.read("degradation_preview.png", 3)
    assert f"{sheet.shape[1]}×{sheet.shape[0]} px, of 4 images, ×4" in out
    assert sheet.shape[0] > 4 * 40
    assert sheet.shape[1] > 8 * 44
    (tmp_path / "own.json").write_text(
        f'{{"scale_factor": 2, "seed": 1, "pretraining": {{"cr_patch_size": [16, 24], "degradation": {{}},'
        f' "train_datasets": ["{photos / "val"}"]}}}}'
    )
    assert prepare(capsys, "own.json")[0] == 0  # its own images; the sheet is replaced
    own = images.read("degradation_preview.png", 3)
    assert own.shape[0] < sheet.shape[0]
    assert prepare(capsys, "own.json", photos / "train")[1].endswith("of 4 images, ×2\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["degradation_preview.png", "own.json"]


def test_preview_of_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.json").write_text("{}")
    code, _, err = prepare(capsys, "plain.json", photos / "train")
    assert code == 2
    assert err == (
        "error: plain.json: expected a degradation in one of its stages, got null in both; "
        'write "degradation": {} for that of Real-ESRGAN\n'
    )
    code, _, err = prepare(capsys, tmp_path / "nowhere")
    assert code == 2
    assert "nowhere" in err
    Image.new("RGB", (3, 50)).save(tmp_path / "thin.png")
    code, _, err = prepare(capsys, tmp_path)
    assert code == 2
    assert "thin.png: expected at least 4×4 px, got 3×50 px; remove it" in err
    assert not (tmp_path / "degradation_preview.png").exists()
