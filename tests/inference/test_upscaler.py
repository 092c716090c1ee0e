import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.nn.utils import prune

from esrgan import Upscaler, images, resize
from esrgan.errors import DeviceError, EsrganError, ImageError, WeightsError
from esrgan.images import ImageData
from esrgan.inference import network as network_module
from esrgan.inference import upscale_image
from esrgan.inference.samples import fill
from esrgan.models import Generator, RRDBNet, SRVGGNetCompact
from esrgan.video.pipeline import upscale_together
from esrgan.weights import RRDBNetArchitecture, infer_architecture, load_generator, save_file
from tests.helpers.models import make_model, pixels

RNG = np.random.default_rng(0)
CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


@pytest.fixture
def upscaler(model):
    return Upscaler.from_file(model, "cpu", "fp32")


def test_array_tensor_pil_image_and_path_agree(upscaler, tmp_path):
    image = pixels(9, 7, 3)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    expected = upscaler.network(tensor)[0].permute(1, 2, 0).clamp(0, 1).detach().numpy()
    high = upscaler(image)
    assert high.shape == (18, 14, 3)
    assert high.dtype == np.uint8
    np.testing.assert_array_equal(high, (expected * 255).round().astype(np.uint8))
    assert 20 < high.mean() < 235  # the output is not clipped
    assert high.std() > 5
    np.testing.assert_allclose(upscaler(tensor)[0].permute(1, 2, 0).clamp(0, 1), expected, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(upscaler(Image.fromarray(image))), high)
    images.write_pixels(tmp_path / "a.png", image)
    np.testing.assert_array_equal(np.asarray(upscaler(tmp_path / "a.png")), high)
    np.testing.assert_array_equal(np.asarray(upscaler(str(tmp_path / "a.png"))), high)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_dtype_and_value_range_are_kept(upscaler, dtype):
    unit = RNG.random((6, 5, 3))
    peak = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    image = (unit * peak).astype(dtype)
    high = upscaler(image)
    assert high.dtype == dtype
    np.testing.assert_allclose(high / peak, upscaler(unit), atol=0.02)
    assert high.max() / peak <= 1


def test_grey_stays_grey(upscaler, tmp_path):
    grey = pixels(6, 5)
    high = upscaler(grey)
    assert high.shape == (12, 10)
    tensor = torch.from_numpy(grey)[None, None] / 255
    torch.testing.assert_close(upscaler(tensor), upscaler(tensor.expand(-1, 3, -1, -1)).mean(1, keepdim=True))
    assert upscaler(grey[..., None]).shape == (12, 10, 1)
    assert upscaler(Image.fromarray(grey)).mode == "L"
    images.write_pixels(tmp_path / "g.png", grey[..., None])
    assert upscaler(tmp_path / "g.png").mode == "L"


def test_alpha_is_upscaled_as_a_grey_image(upscaler):
    image = pixels(6, 5, 4) | 2  # no pixel is fully transparent
    high = upscaler(image)
    np.testing.assert_array_equal(high[..., :3], upscaler(image[..., :3]))
    np.testing.assert_array_equal(high[..., 3], upscaler(image[..., 3]))
    grey = image[..., 2:]
    np.testing.assert_array_equal(upscaler(grey), np.stack([upscaler(grey[..., 0]), upscaler(grey[..., 1])], 2))


def test_colours_under_transparent_pixels_do_not_bleed(upscaler):
    image = np.full((16, 16, 4), (200, 100, 50, 255), np.uint8)
    image[:, 8:, 3] = 0
    results = []
    for hidden in (0, 255):
        image[:, 8:, :3] = hidden
        results.append(upscaler(image))
    np.testing.assert_array_equal(*results)
    plain = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    np.testing.assert_array_equal(results[0][..., :3], upscaler(plain))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_colours_under_an_alpha_of_one_do_not_bleed(upscaler, dtype):
    """The colour itself is nearly invisible, but the network would spread it to neighbouring pixels."""
    peak = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    image = (np.full((16, 16, 4), (200, 100, 50, 255)) / 255 * peak).astype(dtype)
    image[:, 8:, 3] = np.asarray(peak / 255).astype(dtype)
    plain = upscaler(image[..., :3])
    image[:, 8:, :3] = (np.array((255, 0, 255)) / 255 * peak).astype(dtype)
    np.testing.assert_array_equal(upscaler(image)[..., :3], plain)


def test_soft_edges_change_by_at_most_one_level():
    """Colours are replaced only where their alpha, and so their weight over any background, is at most 1/255."""
    for _ in range(20):
        colours, alpha = pixels(16, 16, 3), np.minimum(pixels(16, 16), pixels(16, 16) // 16)
        filled = fill(colours, alpha <= 1, alpha > 1)
        assert not np.array_equal(filled, colours)
        seen = np.abs(filled.astype(float) - colours) * alpha[..., None] / 255
        assert seen[alpha > 0].max() <= 1


@pytest.mark.parametrize("alpha", [0, 7, 255])
def test_constant_alpha_is_kept(upscaler, alpha):
    image = pixels(6, 5, 4)
    image[..., 3] = alpha
    high = upscaler(image)
    assert np.all(high[..., 3] == alpha)
    np.testing.assert_array_equal(high[..., :3], upscaler(image[..., :3]))


@pytest.mark.parametrize("network_channels", [1, 4])
def test_networks_with_other_channel_counts_accept_colour(tmp_path, network_channels):
    upscaler = Upscaler.from_file(make_model(tmp_path / "m.pth", channels=network_channels), "cpu")
    assert upscaler(pixels(4, 5, 3)).shape == (8, 10, 3)
    assert upscaler(pixels(4, 5)).shape == (8, 10)
    assert upscaler(pixels(4, 5, 4)).shape == (8, 10, 4)
    assert upscaler(pixels(4, 5, 2)).shape == (8, 10, 2)


@pytest.fixture
def colouriser(tmp_path):
    torch.manual_seed(0)
    architecture = RRDBNetArchitecture(1, 3, 8, 4, 1, 1, 3, False, False, is_colouriser=True)
    save_file(tmp_path / "colour.pth", {"params": architecture.build("trunk").state_dict()})
    return Upscaler.from_file(tmp_path / "colour.pth", "cpu", "fp32")


def test_a_network_that_colours_sees_luma_and_returns_colour(colouriser):
    grey = pixels(9, 11)
    coloured = colouriser(grey)
    assert coloured.shape == (9, 11, 3)
    assert np.ptp(coloured.astype(int), axis=2).max() > 0
    np.testing.assert_array_equal(colouriser(grey[..., None].repeat(3, 2)), coloured)
    alpha = pixels(9, 11)
    np.testing.assert_array_equal(colouriser(np.dstack([grey, alpha]))[..., :3].shape, (9, 11, 3))
    low = torch.rand(1, 3, 9, 11)
    luma = (low * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(colouriser(low), colouriser(luma))
    assert colouriser(Image.fromarray(grey)).mode == "RGB"
    assert upscale_image(colouriser, ImageData((grey[..., None],))).frames[0].shape == (9, 11, 3)
    bands = ImageData((pixels(9, 11, 5),), extra_bands=2)  # bands and alpha that are data keep their channels
    for transparency in ("colour", "data"):
        high = upscale_image(Upscaler(colouriser.network, CPU, transparency=transparency), bands)
        assert high.frames[0].shape == (9, 11, 5)


def test_one_channel_network_upscales_channels_separately(tmp_path):
    upscaler = Upscaler.from_file(make_model(tmp_path / "m.pth", channels=1), "cpu")
    image = pixels(4, 5, 3)
    high = upscaler(image)
    for channel in range(3):
        assert np.abs(high[..., channel].astype(int) - upscaler(image[..., channel])).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (13, 1, 3)])
def test_tiny_images_are_upscaled(upscaler, shape):
    assert upscaler(pixels(*shape)).shape == (2 * shape[0], 2 * shape[1], 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_samples_of_0_to_255_are_rejected(upscaler, dtype):
    """Arrays would become white, which looks like a result, and a network is not made for such tensors."""
    image = pixels(6, 7, 3).astype(dtype)
    image[0, 0] = 200
    for wrong in (image, torch.from_numpy(image).permute(2, 0, 1)[None]):
        with pytest.raises(ValueError, match=r"samples from 0 to 1, got samples up to 2.*; divide them by their value"):
            upscaler(wrong)
    bright = np.linspace(-0.2, 1.6, 6 * 7 * 3, dtype=dtype).reshape(6, 7, 3)  # highlights and overshoot
    assert upscaler(bright).shape == (12, 14, 3)


def test_impossible_sizes_are_refused_before_their_memory_is_requested(model):
    upscaler = Upscaler.from_file(model, "cpu", width=10**9)
    with pytest.raises(EsrganError, match="64"):
        upscaler(pixels(6, 7, 3))


def test_invalid_images_are_rejected(upscaler):
    with pytest.raises(ValueError, match=r"got bool; multiply it by np\.uint8\(255\)"):
        upscaler(np.ones((4, 4), bool))
    for wrong in (pixels(4, 4, 5), pixels(0, 4, 3), pixels(2, 4, 4, 3), np.zeros((4, 4, 3), np.int32)):
        with pytest.raises(ValueError, match="expected an array"):
            upscaler(wrong)
    with pytest.raises(ValueError, match="expected an array without a mask"):
        upscaler(np.ma.masked_equal(pixels(4, 4, 3), 7))
    with pytest.raises(ValueError, match="expected a float tensor"):
        upscaler(torch.zeros(3, 4, 4))
    for wrong in (torch.zeros(1, 3, 4, 4, device="meta"), torch.zeros(1, 3, 4, 4).to_sparse()):
        with pytest.raises(ValueError, match="expected a dense tensor with data, got torch"):
            upscaler(wrong)
    with pytest.raises(ValueError, match="expected 3 channels, got 2"):
        upscaler(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ImageError):
        upscaler("nowhere.png")
    for wrong in (None, [1], b"a"):
        with pytest.raises(ValueError, match="expected a path, PIL image, array or tensor"):
            upscaler(wrong)


def test_precision_changes_rounding_and_is_validated(model):
    exact = Upscaler.from_file(model, "cpu", "fp32")
    rough = Upscaler.from_file(model, "cpu", "bf16")
    image = pixels(32, 32, 3)
    difference = np.abs(exact(image).astype(int) - rough(image))
    assert 0 < difference.max() < 12
    with pytest.raises(DeviceError, match="bf16 or fp32"):
        Upscaler.from_file(model, "cpu", "fp16")
    with pytest.raises(ValueError, match="precision"):
        Upscaler.from_file(model, "cpu", "int8")


def test_half_precision_overflow_is_recomputed_in_float32(model, monkeypatch):
    warnings = []
    monkeypatch.setattr(network_module.log, "warning", warnings.append)
    rough = Upscaler.from_file(model, "cpu", "bf16")
    image = pixels(8, 8, 3)
    rough(image)
    assert not warnings
    rough.chain.networks[0].fast.conv_up1.weight.fill_(torch.inf)
    for _ in range(2):
        np.testing.assert_array_equal(rough(image), Upscaler.from_file(model, "cpu", "fp32")(image))
    (text,) = warnings  # each image takes more than twice its time, which is said once
    assert text.endswith("upscaled again in float32; --precision fp32 avoids the first attempt")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("options", [{}, {"self_ensemble": True}, {"outscale": 3}])
@pytest.mark.slow
def test_nonfinite_output_is_rejected(tmp_path, precision, options):
    """Even finite weights, such as those of a diverged training run, can produce NaN or infinity."""
    file = load_generator(make_model(tmp_path / "model.pth"))
    file.state["conv_last.weight"].fill_(3e38)
    upscaler = Upscaler.from_file(file, "cpu", precision, **options)
    for image in (pixels(8, 8, 3), pixels(8, 8), pixels(8, 8, 4), torch.rand(2, 3, 8, 8)):
        with pytest.raises(
            WeightsError, match="the network's output contains NaN or infinity; its weights are damaged"
        ):
            upscaler(image)


@pytest.mark.parametrize("mode", ["1", "P", "L", "LA", "RGB", "RGBA", "I;16"])
def test_pil_images_keep_their_mode(upscaler, mode):
    image = Image.fromarray(pixels(6, 5, 3)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    image.info["icc_profile"] = b"profile"
    high = upscaler(image)
    assert high.size == (10, 12)
    assert high.mode == {"1": "L", "P": "RGB"}.get(mode, mode)
    assert high.info["icc_profile"] == b"profile"
    with pytest.raises(ValueError, match="CMYK"):
        upscaler(Image.new("CMYK", (4, 4)))


def test_files_that_pil_cannot_hold_are_rejected(upscaler, tmp_path):
    frames = tuple(pixels(4, 5, 3) for _ in range(2))
    images.write_image(tmp_path / "moving.webp", images.ImageData(frames, "WEBP", delays_ms=(10, 10)))
    images.write_image(tmp_path / "deep.png", images.ImageData((frames[0].astype(np.uint16),)))
    for name in ("moving.webp", "deep.png"):
        with pytest.raises(ImageError, match="expected an image that PIL can represent"):
            upscaler(tmp_path / name)
    images.write_image(
        tmp_path / "grey.png", images.ImageData((frames[0][..., :1].astype(np.uint16) * 257,), dpi=(300, 300))
    )
    high = upscaler(tmp_path / "grey.png")
    assert high.mode == "I;16"
    assert high.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("options", [{}, {"self_ensemble": True}])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.slow
def test_progress_goes_from_0_to_1_once(model, options, channels):
    reported = []
    Upscaler.from_file(model, "cpu", "fp32", **options)(pixels(90, 80, channels), reported.append)
    assert reported == sorted(reported)
    assert reported[-1] == 1
    assert len(reported) == len(set(reported)) >= (16 if options and channels == 4 else 8 if options else 2)


def test_self_ensemble_is_the_mean_over_the_dihedral_group(model):
    tensor = torch.rand(1, 3, 5, 7)
    network = load_generator(model).build()
    results = []
    for transposed in (False, True):
        for flips in ([], [2], [3], [2, 3]):
            turned = network((tensor.mT if transposed else tensor).flip(flips)).flip(flips)
            results.append(turned.mT if transposed else turned)
    ensemble = Upscaler.from_file(model, "cpu", "fp32", self_ensemble=True)
    torch.testing.assert_close(ensemble(tensor), torch.stack(results).mean(0))
    image = pixels(5, 7, 3)
    assert ensemble(image).dtype == np.uint8
    turned = np.rot90(image)
    assert (
        np.abs(ensemble(turned).astype(int) - np.rot90(ensemble(image))).max() <= 1
    )  # rotating the input rotates the output


@pytest.mark.parametrize("outscale", [0.5, 1.5, 2, 3.3])
@pytest.mark.slow
def test_outscale_sets_the_output_size(model, outscale):
    upscaler = Upscaler.from_file(model, "cpu", "fp32", outscale=outscale)
    image = pixels(40, 60, 4)
    high = upscaler(image)
    assert high.shape == (round(40 * outscale), round(60 * outscale), 4) == (*upscaler.output_size(40, 60), 4)
    twice = Upscaler.from_file(model, "cpu", "fp32")(image)
    if outscale == 2:
        np.testing.assert_array_equal(high, twice)
    elif outscale == 0.5:
        expected = resize.bicubic(twice[..., :3], Fraction(1, 4))
        inside = slice(3, -3)  # the two implementations treat edges differently
        assert np.abs(high[inside, inside, :3].astype(int) - expected[inside, inside]).max() <= 2
    with pytest.raises(ValueError, match="outscale"):
        Upscaler.from_file(model, "cpu", outscale=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_their_dtype(upscaler, dtype):
    tensor = torch.rand(2, 3, 5, 6).to(dtype).requires_grad_()
    high = upscaler(tensor)
    assert high.dtype == dtype
    torch.testing.assert_close(high, upscaler(tensor.detach().float()).to(dtype))


@pytest.mark.parametrize("size", [20, 100])
def test_the_callers_autocast_does_not_matter(upscaler, size):
    image = pixels(size, size, 3)
    expected = upscaler(image)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(upscaler(image), expected)


def test_the_callers_network_is_not_changed(model):
    network = load_generator(model).build().train()
    Upscaler(network, torch.device("cpu"), torch.bfloat16)
    assert network.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in network.parameters())


def test_pil_images_with_frames_are_rejected(upscaler, tmp_path):
    frames = [Image.fromarray(pixels(6, 8, 3)) for _ in range(2)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="expected one image, got 2 frames"):
        upscaler(Image.open(tmp_path / "a.gif"))


GREYS = np.linspace(0, 255, 48, dtype=np.uint8).reshape(6, 8)


@pytest.mark.parametrize(
    ("mode", "image", "transparency"),
    [
        ("RGBA", Image.fromarray(pixels(6, 8, 3)), (1, 2, 3)),
        ("LA", Image.fromarray(GREYS), int(GREYS[2, 2])),
        ("LA", Image.fromarray(GREYS > 99), 0),
        ("L", Image.fromarray(GREYS).quantize(16), None),
        ("LA", Image.fromarray(GREYS).quantize(16), 3),
        ("RGB", Image.fromarray(pixels(6, 8, 3)).quantize(16), None),
        ("RGBA", Image.fromarray(pixels(6, 8, 3)).quantize(16), 3),
        ("L", Image.fromarray(GREYS[:1, :1]).quantize(16), None),
    ],
)
def test_opened_pil_image_equals_its_file(upscaler, tmp_path, mode, image, transparency):
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    expected = upscaler(tmp_path / "a.png")
    assert expected.mode == mode
    with Image.open(tmp_path / "a.png") as opened:
        high = upscaler(opened)
    assert high.mode == mode
    np.testing.assert_array_equal(np.asarray(high), np.asarray(expected))


def test_16_bit_grey_with_transparent_colour_is_rejected(upscaler, tmp_path):
    """PIL has no 16-bit mode with alpha, and conversion to RGBA would reduce it to 8 bits."""
    Image.fromarray(GREYS.astype(np.uint16) * 257).save(tmp_path / "a.png", transparency=257)
    with Image.open(tmp_path / "a.png") as image, pytest.raises(ValueError, match=r"delete image.info\[\"transp"):
        upscaler(image)
    with pytest.raises(ImageError, match="expected an image that PIL can represent"):
        upscaler(tmp_path / "a.png")
    assert upscaler(images.read_image(tmp_path / "a.png").frames[0]).shape == (12, 16, 2)


def test_exif_orientation_is_applied_once(upscaler, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(6, 8, 3)).save(tmp_path / "a.jpg", exif=exif)
    high = upscaler(tmp_path / "a.jpg")
    assert ImageOps.exif_transpose(high).size == high.size == (12, 16)


def test_exif_of_a_file_states_the_new_size(upscaler, tmp_path):
    exif = Image.Exif()
    exif[0x0100], exif[0x0101] = 8, 6  # ImageWidth and ImageLength
    Image.fromarray(pixels(6, 8, 3)).save(tmp_path / "a.jpg", exif=exif)
    block = upscaler(tmp_path / "a.jpg").getexif()
    assert (block[0x0100], block[0x0101]) == (16, 12)


def test_threads_can_share_an_upscaler(upscaler):
    batch = [pixels(30 + i, 40, 3) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for high, image in zip(pool.map(upscaler, batch), batch, strict=True):
            np.testing.assert_array_equal(high, upscaler(image))


def test_architecture_of_the_fixture_is_inferred(model):
    architecture = load_generator(model).architecture
    assert architecture == infer_architecture(architecture.build().state_dict())
    assert asdict(architecture)["scale_factor"] == 2


@pytest.mark.parametrize("winograd", [False, True])
def test_default_device_and_dtype_of_pytorch_change_nothing(tmp_path, winograd):
    network = load_generator(make_model(tmp_path / "model.pth")).build()
    image = pixels(40, 36, 3)
    expected = Upscaler(network, CPU, winograd=winograd)(image)
    try:
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        np.testing.assert_array_equal(Upscaler(network, CPU, winograd=winograd)(image), expected)
        Upscaler(network, CPU, torch.bfloat16)(image)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def test_autocast_around_a_call_changes_nothing(model):
    upscaler = Upscaler.from_file(model, "cpu", color_fix="low")
    image = pixels(40, 36, 3).astype(np.float32) / 255
    expected = upscaler(image)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(upscaler(image), expected)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (
            np.zeros((5, 5, 3), np.uint8),
            r"out: expected a writeable array \(18, 14, 3\) of uint8, got \(5, 5, 3\) of uint8",
        ),
        (np.zeros((18, 14, 3), np.float32), "of float32"),
        ([1], r"out: expected an array \(18, 14, 3\) of uint8, got list"),
        (np.broadcast_to(np.uint8(0), (18, 14, 3)), "of uint8, read-only"),
    ],
)
def test_out_that_does_not_fit_is_refused(upscaler, out, message):
    with pytest.raises(ValueError, match=message):
        upscaler(pixels(9, 7, 3), out=out)


def test_out_is_refused_for_the_images_memory_and_for_other_images(upscaler):
    memory = np.zeros((18, 14, 3), np.uint8)
    with pytest.raises(ValueError, match="memory of its own"):
        upscaler(memory[:9, :7], out=memory)
    canvas = np.zeros((18, 28, 3), np.uint8)  # parts of one array that do not overlap
    upscaler(canvas[:9, :7], out=canvas[:, 14:])
    np.testing.assert_array_equal(canvas[:, 14:], upscaler(np.zeros((9, 7, 3), np.uint8)))
    with pytest.raises(ValueError, match="only for arrays, got Image"):
        upscaler(Image.new("RGB", (7, 9)), out=memory)


def test_networks_of_any_precision_and_names_of_devices_are_accepted(model):
    network = load_generator(model).build()
    image = pixels(9, 7, 3)
    expected = Upscaler(network, CPU)(image)
    np.testing.assert_array_equal(Upscaler(network.double(), "cpu")(image), expected)


def test_entries_of_a_folder_are_paths(upscaler, model, tmp_path):
    Image.fromarray(pixels(6, 7, 3)).save(tmp_path / "a.png")
    entries = {entry.name: entry for entry in os.scandir(tmp_path)}
    assert upscaler(entries["a.png"]).size == (14, 12)
    for loaded in (Upscaler.from_file(entries[model.name], "cpu"), Upscaler.from_file([entries[model.name]], "cpu")):
        assert f"Upscaler({model}: RRDBNet ×2" in repr(loaded)


def test_objects_that_are_no_generators_are_named(model):
    network = load_generator(model).build()
    with pytest.raises(TypeError, match="got DataParallel; take the generator out of its wrapper"):
        Upscaler(torch.nn.DataParallel(network), CPU)
    with pytest.raises(TypeError, match=r"got RRDBNet; a network that is already built goes to Upscaler\("):
        Upscaler.from_file(network)
    with pytest.raises(TypeError, match="expected a path, name or GeneratorFile, got bytes"):
        Upscaler.from_file(b"x.pth")


class OwnForward(RRDBNet):
    def forward(self, low):
        return super().forward(low) * 2


class OwnTrunk(RRDBNet):
    @property
    def trunk(self):
        return super().trunk[::-1]


class OwnConv(torch.nn.Conv2d):
    pass


class OtherNetwork(Generator):
    def __init__(self):
        super().__init__(2, 3, 3)


class OnlyAName(RRDBNet):
    pass


SIZE = {"scale_factor": 2, "rrdb_channels": 8, "growth_channels": 4, "num_basic_blocks": 2}


def changed(change, network=None):
    network = network or RRDBNet(**SIZE)
    change(network)
    return network


def conv(**options):
    return torch.nn.Conv2d(8, 8, **{"kernel_size": 3, "padding": 1, **options})


CHANGED = {
    "OtherNetwork": lambda: OtherNetwork(),
    "OwnForward with its own forward": lambda: OwnForward(**SIZE),
    "OwnTrunk with its own trunk": lambda: OwnTrunk(**SIZE),
    "another forward in conv_hr": lambda: changed(lambda net: setattr(net.conv_hr, "forward", torch.relu)),
    "a hook in the network": lambda: changed(lambda net: net.register_forward_hook(print)),
    "a hook in body.1": lambda: changed(lambda net: net.body[1].register_forward_pre_hook(print)),
    "Identity in body.1": lambda: changed(lambda net: net.body.__setitem__(1, torch.nn.Identity())),
    "OwnConv in conv_hr": lambda: changed(lambda net: setattr(net, "conv_hr", OwnConv(8, 8, 3, padding=1))),
    "padding_mode=reflect": lambda: changed(lambda net: setattr(net, "conv_hr", conv(padding_mode="reflect"))),
    r"dilation=\(2, 2\)": lambda: changed(lambda net: setattr(net, "conv_hr", conv(dilation=2, padding=2))),
    r"stride=\(2, 2\)": lambda: changed(lambda net: setattr(net, "conv_hr", conv(stride=2))),
    "missing tensors": lambda: changed(lambda net: setattr(net, "conv_hr", conv(bias=False))),
    "wrong shape": lambda: changed(lambda net: setattr(net, "conv_hr", conv(kernel_size=1, padding=0))),
    "Conv2d in conv_hr": lambda: changed(lambda net: torch.nn.utils.parametrizations.weight_norm(net.conv_hr)),
    "hook in conv_hr": lambda: changed(lambda net: prune.random_unstructured(net.conv_hr, "weight", 0.5)),
    r"another number of layers \(first: body.5\)": lambda: changed(
        lambda net: net.body.append(torch.nn.ReLU()), SRVGGNetCompact(2, 3, 8, 1)
    ),
    "SiLU in body.1": lambda: changed(
        lambda net: net.body.__setitem__(1, torch.nn.SiLU()), SRVGGNetCompact(2, 3, 8, 1)
    ),
}


@pytest.mark.parametrize("change", CHANGED)
def test_networks_that_weights_do_not_determine_are_refused(change):
    """Large images are computed from the weights, not by calling the network."""
    with pytest.raises(TypeError, match=f"expected RRDBNet or SRVGGNetCompact without changes, .* got .*({change})"):
        Upscaler(CHANGED[change](), CPU)


@pytest.mark.parametrize(
    "network",
    [
        OnlyAName(**SIZE),
        RRDBNet(4, 1, 8, 4, 1, 1, 1),
        RRDBNet(1, 3, 8, 4, 1, in_channels=1),
        RRDBNet(2, 4, 8, 4, 1, pixel_unshuffle=4, plus=True, use_subpixel_conv=True, residual_scaling=0.5),
        SRVGGNetCompact(3, 1, 8, 0, "leakyrelu"),
        SRVGGNetCompact(2, 3, 8, 2, "relu"),
        changed(lambda net: setattr(net, "loss", torch.nn.L1Loss())),
        changed(lambda net: setattr(net, "extra", conv())),
        changed(lambda net: net.register_buffer("steps", torch.tensor(3))),
        changed(lambda net: setattr(net, "forward", torch.compile(net.forward))),
    ],
)
def test_networks_of_every_kind_are_accepted(network):
    low = torch.rand(1, network.in_channels, 40, 70)
    with torch.no_grad():
        expected = type(network).forward(network, low)
    torch.testing.assert_close(Upscaler(network, CPU)(low), expected)


@pytest.mark.parametrize("function", [(torch, "isfinite"), (torch.Tensor, "clamp"), (torch.Tensor, "round")])
def test_out_of_memory_after_a_part_was_computed_is_survived(upscaler, monkeypatch, function):
    image, real, calls = pixels(90, 60, 3), getattr(*function), []
    expected = upscaler(image)

    def fail_once(values, *arguments):
        calls.append(values.numel())
        if [count > 0 for count in calls].count(True) == 1 and calls[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(values, *arguments)

    monkeypatch.setattr(*function, fail_once)
    np.testing.assert_allclose(upscaler(image).astype(int), expected, atol=1)
    frames = [image, image[::-1].copy()]
    calls.clear()
    made = upscale_together(upscaler, frames)
    monkeypatch.undo()
    np.testing.assert_allclose(made.astype(int), [upscaler(frame) for frame in frames], atol=1)


@pytest.mark.parametrize("kind", ["network", "tensor"])
def test_full_memory_is_reported_in_one_line(upscaler, monkeypatch, kind):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB. See\nhttps://pytorch.org")

    if kind == "network":
        monkeypatch.setattr(torch.nn.Module, "to", fail)
        with pytest.raises(DeviceError, match=r"^cpu: not enough memory for the network; close other programs"):
            Upscaler(upscaler.network, "cpu")
    else:
        monkeypatch.setattr(torch, "empty_like", fail)
        with pytest.raises(DeviceError, match=r"^cpu: not enough memory for the output of 14×18 px; close"):
            upscaler(torch.rand(1, 3, 9, 7))


def test_arrays_of_one_row_or_pixel_with_any_strides_are_upscaled(upscaler):
    row, pixel = pixels(1, 9, 3), pixels(1, 1, 3)
    fields = np.zeros((1, 1), [("a", np.uint8), ("b", np.float32)])
    fields["b"] = 0.25
    for image in (np.flipud(row), pixel[::-1, ::-1], fields["b"], np.flipud(row.astype(np.float32) / 255)):
        np.testing.assert_array_equal(upscaler(image), upscaler(image.copy()))
