import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from esrgan import Upscaler, images, metrics, pictures, resize
from esrgan.cli import inference as inference_command
from esrgan.cli import interpolate as interpolate_command
from esrgan.cli import main as esrgan
from esrgan.cli import test as test_command
from esrgan.errors import DeviceError, ImageError, WeightsError
from esrgan.inference.upscaler import _continued
from esrgan.weights import infer_architecture, load_generator
from tests.helpers.models import make_model, pixels, run

RNG = np.random.default_rng(0)


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


@pytest.fixture
def upscaler(model):
    return Upscaler.from_file(model, "cpu", "fp32")


# The library


def test_array_tensor_picture_and_path_agree(upscaler, tmp_path):
    image = pixels(9, 7, 3)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    expected = upscaler.network(tensor)[0].permute(1, 2, 0).clamp(0, 1).detach().numpy()
    high = upscaler(image)
    assert high.shape == (18, 14, 3)
    assert high.dtype == np.uint8
    np.testing.assert_array_equal(high, (expected * 255).round().astype(np.uint8))
    assert 20 < high.mean() < 235  # it is no constant clipped at an end
    assert high.std() > 5
    np.testing.assert_allclose(upscaler(tensor)[0].permute(1, 2, 0).clamp(0, 1), expected, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(upscaler(Image.fromarray(image))), high)
    images.write(tmp_path / "a.png", image)
    np.testing.assert_array_equal(np.asarray(upscaler(tmp_path / "a.png")), high)
    np.testing.assert_array_equal(np.asarray(upscaler(str(tmp_path / "a.png"))), high)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_dtype_stays_and_means_the_same(upscaler, dtype):
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
    images.write(tmp_path / "g.png", grey[..., None])
    assert upscaler(tmp_path / "g.png").mode == "L"


def test_alpha_goes_through_the_network_as_a_grey_image(upscaler):
    image = pixels(6, 5, 4) | 2  # nothing wholly transparent
    high = upscaler(image)
    np.testing.assert_array_equal(high[..., :3], upscaler(image[..., :3]))
    np.testing.assert_array_equal(high[..., 3], upscaler(image[..., 3]))
    grey = image[..., 2:]
    np.testing.assert_array_equal(upscaler(grey), np.stack([upscaler(grey[..., 0]), upscaler(grey[..., 1])], 2))


def test_what_is_under_transparent_pixels_does_not_shine_through(upscaler):
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
def test_what_is_under_an_alpha_of_one_does_not_shine_through(upscaler, dtype):
    """It is hardly to be seen there, but the network would carry it into the pixels beside."""
    peak = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    image = (np.full((16, 16, 4), (200, 100, 50, 255)) / 255 * peak).astype(dtype)
    image[:, 8:, 3] = np.asarray(peak / 255).astype(dtype)
    plain = upscaler(image[..., :3])
    image[:, 8:, :3] = (np.array((255, 0, 255)) / 255 * peak).astype(dtype)
    np.testing.assert_array_equal(upscaler(image)[..., :3], plain)


def test_soft_edges_look_as_before_to_a_level():
    """Whatever colours they have, over any background: what is replaced has a weight of at most 1/255."""
    for _ in range(20):
        colours, alpha = pixels(16, 16, 3), np.minimum(pixels(16, 16), pixels(16, 16) // 16)
        continued = _continued(colours, alpha > 1)
        assert not np.array_equal(continued, colours)
        seen = np.abs(continued.astype(float) - colours) * alpha[..., None] / 255
        assert seen[alpha > 0].max() <= 1


@pytest.mark.parametrize("alpha", [0, 7, 255])
def test_a_constant_alpha_stays(upscaler, alpha):
    image = pixels(6, 5, 4)
    image[..., 3] = alpha
    high = upscaler(image)
    assert np.all(high[..., 3] == alpha)
    np.testing.assert_array_equal(high[..., :3], upscaler(image[..., :3]))


@pytest.mark.parametrize("network_channels", [1, 4])
def test_networks_of_other_channels_take_colour(tmp_path, network_channels):
    upscaler = Upscaler.from_file(make_model(tmp_path / "m.pth", channels=network_channels), "cpu")
    assert upscaler(pixels(4, 5, 3)).shape == (8, 10, 3)
    assert upscaler(pixels(4, 5)).shape == (8, 10)
    assert upscaler(pixels(4, 5, 4)).shape == (8, 10, 4)
    assert upscaler(pixels(4, 5, 2)).shape == (8, 10, 2)


def test_a_network_of_one_channel_takes_each_by_itself(tmp_path):
    upscaler = Upscaler.from_file(make_model(tmp_path / "m.pth", channels=1), "cpu")
    image = pixels(4, 5, 3)
    high = upscaler(image)
    for channel in range(3):
        assert np.abs(high[..., channel].astype(int) - upscaler(image[..., channel])).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (13, 1, 3)])
def test_tiny_images(upscaler, shape):
    assert upscaler(pixels(*shape)).shape == (2 * shape[0], 2 * shape[1], 3)


def test_what_is_no_image_is_refused(upscaler):
    for wrong in (pixels(4, 4, 5), pixels(0, 4, 3), pixels(2, 4, 4, 3), np.zeros((4, 4, 3), np.int32)):
        with pytest.raises(ValueError, match="expected an array"):
            upscaler(wrong)
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


def test_precision(model):
    exact = Upscaler.from_file(model, "cpu", "fp32")
    rough = Upscaler.from_file(model, "cpu", "bf16")
    image = pixels(8, 8, 3)
    difference = np.abs(exact(image).astype(int) - rough(image))
    assert 0 < difference.max() < 12
    with pytest.raises(DeviceError, match="bf16 or fp32"):
        Upscaler.from_file(model, "cpu", "fp16")
    with pytest.raises(ValueError, match="precision"):
        Upscaler.from_file(model, "cpu", "int8")


def test_half_precision_that_overflows_is_done_again(model):
    rough = Upscaler.from_file(model, "cpu", "bf16")
    image = pixels(8, 8, 3)
    rough._network.conv_up1.weight.fill_(torch.inf)
    np.testing.assert_array_equal(rough(image), Upscaler.from_file(model, "cpu", "fp32")(image))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("options", [{}, {"self_ensemble": True}, {"outscale": 3}])
def test_results_that_are_not_finite_are_refused(tmp_path, precision, options):
    """Finite weights may give them, as those of a training that diverged do."""
    file = load_generator(make_model(tmp_path / "model.pth"))
    file.state["conv_last.weight"].fill_(3e38)
    upscaler = Upscaler.from_file(file, "cpu", precision, **options)
    for image in (pixels(8, 8, 3), pixels(8, 8), pixels(8, 8, 4), torch.rand(2, 3, 8, 8)):
        with pytest.raises(WeightsError, match="the network gives NaN or infinity: its weights are damaged"):
            upscaler(image)


@pytest.mark.parametrize("mode", ["1", "P", "L", "LA", "RGB", "RGBA", "I;16"])
def test_pil_images_of_every_mode(upscaler, mode):
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


def test_files_that_pil_cannot_hold_are_refused(upscaler, tmp_path):
    frames = tuple(pixels(4, 5, 3) for _ in range(2))
    pictures.write(tmp_path / "moving.webp", pictures.Picture(frames, "WEBP", delays_ms=(10, 10)))
    pictures.write(tmp_path / "deep.png", pictures.Picture((frames[0].astype(np.uint16),)))
    for name in ("moving.webp", "deep.png"):
        with pytest.raises(ImageError, match="what a PIL image can hold"):
            upscaler(tmp_path / name)
    pictures.write(
        tmp_path / "grey.png", pictures.Picture((frames[0][..., :1].astype(np.uint16) * 257,), dpi=(300, 300))
    )
    high = upscaler(tmp_path / "grey.png")
    assert high.mode == "I;16"
    assert high.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("options", [{}, {"self_ensemble": True}])
@pytest.mark.parametrize("channels", [3, 4])
def test_progress_goes_from_0_to_1_once(model, options, channels):
    told = []
    Upscaler.from_file(model, "cpu", "fp32", **options)(pixels(90, 80, channels), told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) == len(set(told)) >= (16 if options and channels == 4 else 8 if options else 2)


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
    assert np.abs(ensemble(turned).astype(int) - np.rot90(ensemble(image))).max() <= 1  # it is the same for all turns


@pytest.mark.parametrize("outscale", [0.5, 1.5, 2, 3.3])
def test_other_final_sizes(model, outscale):
    upscaler = Upscaler.from_file(model, "cpu", "fp32", outscale=outscale)
    image = pixels(40, 60, 4)
    high = upscaler(image)
    assert high.shape == (round(40 * outscale), round(60 * outscale), 4) == (*upscaler.size_of(40, 60), 4)
    twice = Upscaler.from_file(model, "cpu", "fp32")(image)
    if outscale == 2:
        np.testing.assert_array_equal(high, twice)
    elif outscale == 0.5:
        expected = resize.bicubic(twice[..., :3], Fraction(1, 4))
        inside = slice(3, -3)  # edges are treated otherwise
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


def test_the_callers_network_stays_as_it_is(model):
    network = load_generator(model).build().train()
    Upscaler(network, torch.device("cpu"), torch.bfloat16)
    assert network.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in network.parameters())


def test_pil_images_with_frames_are_refused(upscaler, tmp_path):
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
def test_a_pil_image_is_what_its_file_is(upscaler, tmp_path, mode, image, transparency):
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    expected = upscaler(tmp_path / "a.png")
    assert expected.mode == mode
    with Image.open(tmp_path / "a.png") as opened:
        high = upscaler(opened)
    assert high.mode == mode
    np.testing.assert_array_equal(np.asarray(high), np.asarray(expected))


def test_grey_of_sixteen_bits_with_a_transparent_colour_is_refused(upscaler, tmp_path):
    """PIL has no such mode with alpha; as RGBA it would be cut to eight bits."""
    Image.fromarray(GREYS.astype(np.uint16) * 257).save(tmp_path / "a.png", transparency=257)
    with Image.open(tmp_path / "a.png") as image, pytest.raises(ValueError, match=r"delete image.info\[\"transp"):
        upscaler(image)
    with pytest.raises(ImageError, match="what a PIL image can hold"):
        upscaler(tmp_path / "a.png")
    assert upscaler(pictures.read(tmp_path / "a.png").frames[0]).shape == (12, 16, 2)


def test_a_file_is_turned_upright_once(upscaler, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(6, 8, 3)).save(tmp_path / "a.jpg", exif=exif)
    high = upscaler(tmp_path / "a.jpg")
    assert ImageOps.exif_transpose(high).size == high.size == (12, 16)


def test_threads_may_share_one(upscaler):
    batch = [pixels(30 + i, 40, 3) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for high, image in zip(pool.map(upscaler, batch), batch, strict=True):
            np.testing.assert_array_equal(high, upscaler(image))


def test_import_is_light_and_names_are_there():
    code = (
        "import sys, esrgan; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules;"
        "esrgan.Upscaler; import esrgan.evaluation; assert 'torchvision' not in sys.modules;"
        "assert set(esrgan.__all__) <= set(dir(esrgan)); [getattr(esrgan, name) for name in esrgan.__all__];"
        "assert 'wandb' not in sys.modules and 'tensorboard' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# inference.py


def test_beside_the_input_and_never_over_a_file_unasked(model, tmp_path, capsys):
    images.write(tmp_path / "a.png", pixels(6, 5, 3))
    assert run(inference_command, "-m", model, tmp_path / "a.png") == 0
    first = (tmp_path / "a_sr.png").read_bytes()
    images.write(tmp_path / "a.png", pixels(6, 5, 3), overwrite=True)
    assert run(inference_command, "-m", model, tmp_path / "a.png") == 1
    assert (tmp_path / "a_sr.png").read_bytes() == first
    assert "--overwrite replaces files" in capsys.readouterr().err
    assert run(inference_command, "-m", model, "--overwrite", tmp_path) == 0
    assert (tmp_path / "a_sr.png").read_bytes() != first
    assert not (tmp_path / "a_sr_sr.png").exists()


def test_profile_and_exif_stay(model, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    Image.fromarray(pixels(6, 8, 3)).save(tmp_path / "a.jpg", exif=exif, icc_profile=profile)
    assert run(inference_command, "-m", model, tmp_path / "a.jpg") == 0
    with Image.open(tmp_path / "a_sr.jpg") as image:
        assert image.size == (12, 16)  # turned once: 8×6 px with orientation 6 is 6×8 upright
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "Maker"
        assert image.info["icc_profile"] == profile


def test_every_frame_is_enlarged_in_its_depth(model, tmp_path):
    frames = [Image.fromarray(pixels(6, 8, 3) // 128 * 255) for _ in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=[30, 50, 70], lossless=True)
    pictures.write(tmp_path / "b.png", pictures.Picture((RNG.integers(0, 65536, (6, 8, 3), np.uint16),)))
    assert run(inference_command, "-m", model, tmp_path) == 0
    moving, deep = pictures.read(tmp_path / "a_sr.webp"), pictures.read(tmp_path / "b_sr.png")
    assert [frame.shape for frame in moving.frames] == [(12, 16, 3)] * 3
    assert moving.delays_ms == (30, 50, 70)
    assert deep.frames[0].shape == (12, 16, 3)
    assert deep.frames[0].dtype == np.uint16


def test_what_no_format_could_hold_is_told_before_the_work(model, tmp_path, capsys, monkeypatch):
    images.write(tmp_path / "a.webp", pixels(1, 9000, 3))
    monkeypatch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("it was enlarged"))
    assert run(inference_command, "-m", model, tmp_path / "a.webp") == 1
    assert "at most 16383 pixels a side for WEBP, got 18000×2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "nowhere.pth", "PHOTO"], "there is no such file"),
        (["-m", "PHOTO", "PHOTO"], "got a PNG image; name a model first"),
        (["-m", "MODEL", "nowhere.png"], "nowhere.png"),
        (["-m", "MODEL", "--device", "cuda:77", "PHOTO"], "device cuda:77"),
        (["-m", "MODEL", "--device", "cpu", "--precision", "fp16", "PHOTO"], "on a CPU use bf16"),
    ],
)
def test_bad_input_is_one_line_and_2(model, tmp_path, capsys, arguments, says):
    photo = tmp_path / "photo.png"
    images.write(photo, pixels(4, 4, 3))
    places = {"MODEL": model, "PHOTO": photo}
    assert run(inference_command, *[places.get(argument, argument) for argument in arguments]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert says in errors[0]
    assert not (tmp_path / "photo_sr.png").exists()


def test_help_has_examples(capsys):
    for name in ("train", "test", "inference", "interpolate"):
        with pytest.raises(SystemExit) as stop:
            esrgan([name, "--help"])
        assert stop.value.code == 0
        assert "examples:\n  " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        esrgan(["upscale"])
    assert stop.value.code == 2


# test.py


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        smooth = resize.bicubic(RNG.random((8, 9, 3)), 4)
        images.write(folder / f"{i}.png", (smooth.clip(0, 1) * 255).astype(np.uint8))
    return folder


def test_figures_are_those_of_the_metrics(model, photos, tmp_path, capsys):
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    code = run(test_command, model, "-d", photos, "-o", out, "--json", figures, "--precision", "fp32", "-s", 1)
    assert code == 0
    data = json.loads(figures.read_text())[str(photos)]
    upscaler = Upscaler.from_file(model, "cpu", "fp32")
    for i in range(3):
        high = images.read(photos / f"{i}.png", 3)
        low = resize.bicubic(high, Fraction(1, 2))
        assert data["images"][str(i)]["bicubic"] == metrics.measure(resize.bicubic(low, 2), high, 2)
        assert data["images"][str(i)]["model"] == metrics.measure(upscaler(low), high, 2)
        np.testing.assert_array_equal(images.read(out / f"photos/{i}_model.png", 3), upscaler(low))
        assert (out / f"photos/{i}_sheet.png").exists()
    mean = np.mean([data["images"][str(i)]["model"]["psnr_y"] for i in range(3)])
    assert data["mean"]["model"]["psnr_y"] == pytest.approx(mean)
    printed = capsys.readouterr().out
    assert f"| **mean** | model | {mean:.2f} |" in printed
    assert "PSNR Y | SSIM Y | PSNR RGB | SSIM RGB" in printed
    assert "scale px of border" in printed
    gains = {n: row["model"]["psnr_y"] - row["bicubic"]["psnr_y"] for n, row in data["images"].items()}
    assert f"most gained over bicubic: {max(gains, key=gains.get)}\n" in printed
    assert f"least gained: {min(gains, key=gains.get)}\n" in printed
    assert printed.split("\n\n", 1)[1].strip() in (out / "report.md").read_text()


def test_several_models_and_datasets_and_a_bad_image(model, photos, tmp_path, capsys):
    other = make_model(tmp_path / "other.pth", seed=1)
    low = tmp_path / "low"
    low.mkdir()
    for path in photos.iterdir():
        images.write(low / path.name, images.read(path, 3)[::2, ::2])
    (photos / "broken.png").write_bytes(b"")
    images.write(low / "broken.png", pixels(4, 4, 3))
    figures = tmp_path / "figures.json"
    code = run(test_command, model, other, "-d", f"skimage,{photos}={low}", "--json", figures)
    assert code == 1
    printed = capsys.readouterr()
    assert "broken.png: expected" in printed.err
    data = json.loads(figures.read_text())
    assert list(data["skimage"]["images"]) == ["chelsea", "coffee"]
    assert list(data["skimage"]["mean"]) == ["bicubic", "model", "other"]
    high = images.read(photos / "0.png", 3)
    expected = metrics.measure(resize.bicubic(high[::2, ::2], 2), high, 2)
    assert data[f"{photos}={low}"]["images"]["0"]["bicubic"] == expected  # the LR folder was used


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["-d", "set55"], "set5, set14"),
        (["-d", "set5", "--data-root", "/nowhere"], "/nowhere/Set5/GTmod12"),
        (["ANOTHER_SCALE"], "models of one scale"),
    ],
)
def test_bad_evaluations_are_refused(model, tmp_path, capsys, change, says):
    another = make_model(tmp_path / "x4.pth", scale=4)
    arguments = [another if argument == "ANOTHER_SCALE" else argument for argument in change]
    assert run(test_command, model, *arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert says in errors[0]


# net_interpolation.py


def test_blend_is_the_mean_of_weights_and_says_its_alpha(tmp_path, capsys):
    psnr = make_model(tmp_path / "p.pth", 0, stage="pretraining", hparams={"seed": 1})
    gan = make_model(tmp_path / "g.pth", 1, stage="training", hparams={"seed": 2})
    out = tmp_path / "blend.safetensors"
    arguments = ["--psnr-model-path", psnr, "--esrgan-model-path", gan, "--alpha", "0.25", out]
    assert run(interpolate_command, *arguments) == 0
    blend, a, b = (load_generator(path) for path in (out, psnr, gan))
    for name, value in blend.state.items():
        torch.testing.assert_close(value, 0.75 * a.state[name] + 0.25 * b.state[name])
    assert (blend.alpha, blend.stage, blend.hparams) == (0.25, "training", {"seed": 2})
    assert "α = 0.25" in blend.describe()
    assert run(interpolate_command, *arguments) == 2
    assert "is there already" in capsys.readouterr().err


def test_blends_that_cannot_be(tmp_path, capsys):
    psnr, gan = make_model(tmp_path / "p.pth"), make_model(tmp_path / "g.pth", scale=4)
    arguments = ["--psnr-model-path", psnr, "--esrgan-model-path", gan, "--alpha"]
    assert run(interpolate_command, *arguments, "0.5", tmp_path / "o.pth") == 2
    assert "RRDBNet ×2 8/4/1 and RRDBNet ×4 8/4/1" in capsys.readouterr().err
    for alpha in ("1.5", "-1", "much", "nan"):
        with pytest.raises(SystemExit) as stop:
            run(interpolate_command, *arguments, alpha, tmp_path / "o.pth")
        assert stop.value.code == 2
    assert not (tmp_path / "o.pth").exists()
    with pytest.raises(WeightsError):
        load_generator(tmp_path / "o.pth")


def test_architecture_of_the_fixture_is_inferred(model):
    architecture = load_generator(model).architecture
    assert architecture == infer_architecture(architecture.build().state_dict())
    assert asdict(architecture)["scale_factor"] == 2
