"""What the demo knows about uploads."""

import numpy as np
import pytest
from PIL import Image

from esrgan import Upscaler
from esrgan.demo.models import CLEAN, DRAWING, LOSSY, NOISY
from esrgan.demo.uploads import describe_limit, inspect_upload
from esrgan.errors import ImageError
from tests.helpers.models import make_model

RNG = np.random.default_rng(0)


def photograph(size=(120, 90)):
    blots = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC)


def test_kinds_of_images_are_recognised(tmp_path):
    photo = photograph()
    noise = RNG.normal(0, 12, (90, 120, 3))
    noisy = Image.fromarray((np.asarray(photo) + noise).clip(0, 255).astype(np.uint8))
    drawing = Image.new("RGB", (120, 90), "white")
    drawing.paste("red", (20, 20, 60, 60))
    for name, image, kind in (
        ("a.jpg", photo, LOSSY),
        ("a.webp", photo, LOSSY),
        ("a.png", photo, CLEAN),
        ("b.png", noisy, NOISY),
        ("c.png", drawing, DRAWING),
        ("d.png", photo.resize((1, 1)), CLEAN),
    ):
        image.save(tmp_path / name)
        assert inspect_upload(tmp_path / name, 10**6).kind == kind, name


def test_work_counts_frames_channels_and_passes(tmp_path):
    upscaler = Upscaler.from_file(make_model(tmp_path / "model.pth"), "cpu")
    photograph((30, 20)).save(tmp_path / "a.png")
    frames = [photograph((30, 20)) for _ in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    Image.fromarray(RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8)).save(tmp_path / "alpha.png")
    plain, animated, transparent = (inspect_upload(tmp_path / n, 10**6) for n in ("a.png", "a.webp", "alpha.png"))
    assert (plain.shapes, plain.output_shapes(upscaler)) == (((20, 30),), [(40, 60)])
    assert [each.work(upscaler) for each in (plain, animated, transparent)] == [600, 1800, 1200]
    larger = Upscaler.from_file(make_model(tmp_path / "model.pth"), "cpu", outscale=4)
    assert plain.work(larger) == 600 + 2400


def test_limit_names_what_to_do(tmp_path):
    photograph((50, 40)).save(tmp_path / "a.png")
    assert describe_limit(inspect_upload(tmp_path / "a.png", 2000), 2000) is None
    text = describe_limit(inspect_upload(tmp_path / "a.png", 1000), 1000)
    assert text.startswith("a.png: 0.002 megapixels are more than the 0.001")
    assert "upload a part" in text
    assert "--max-megapixels 0.1" in text
    with pytest.raises(ImageError, match=r"^a.png: expected at most 0.0016 megapixels, got 0.002 megapixels"):
        inspect_upload(tmp_path / "a.png", 100)


def test_errors_name_the_file_without_its_folders(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%PDF-1.7")
    with pytest.raises(ImageError, match=r"^a.png: expected a PNG.* got a PDF document") as caught:
        inspect_upload(tmp_path / "a.png", 1000)
    assert str(tmp_path) not in str(caught.value)
