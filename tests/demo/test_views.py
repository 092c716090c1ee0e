"""Images as the demo shows them."""

import base64
import io
import re

import numpy as np
from PIL import Image

from esrgan import images
from esrgan.demo import views
from esrgan.images.image import COLOUR_SPACE, NativeBlock


def save(path, array):
    images.write_image(path, images.ImageData((array,)))
    return path


def test_overview_is_bounded_and_sizes_match(tmp_path):
    rng = np.random.default_rng(0)
    low = save(tmp_path / "low.png", rng.integers(0, 256, (40, 1000, 3), dtype=np.uint8))
    high = save(tmp_path / "high.png", rng.integers(0, 256, (80, 2000, 3), dtype=np.uint8))
    assert [image.size for image in views.render_overview(low, high)] == [(views.OVERVIEW_PX, 51)] * 2


def test_deep_samples_are_shown_in_8_bits(tmp_path):
    grey = np.linspace(0, 1, 30 * 40).reshape(30, 40, 1)
    for dtype, factor, name in ((np.uint16, 65535, "deep.png"), (np.float32, 1, "deep.tif")):
        view = views.render(images.read_image(save(tmp_path / name, (grey * factor).astype(dtype))))
        assert view.mode == "L"
        np.testing.assert_allclose(np.asarray(view, float), grey[..., 0] * 255, atol=1)


def test_transparent_images_are_shown_on_white(tmp_path):
    array = np.zeros((2, 2, 4), np.uint8)
    array[0, 0] = 255, 0, 0, 255
    view = views.render(images.read_image(save(tmp_path / "a.png", array)))
    assert [view.getpixel((0, 0)), view.getpixel((1, 1))] == [(255, 0, 0), (255, 255, 255)]


def test_gamma_of_a_png_is_applied(tmp_path):
    array = np.full((2, 2, 4), (0, 128, 255, 128), np.uint8)
    linear = NativeBlock(COLOUR_SPACE, b"gAMA", (100_000).to_bytes(4, "big"))
    for channels in (3, 4):
        data = images.ImageData((array[..., :channels],), native_blocks=(linear,))
        images.write_image(tmp_path / f"{channels}.png", data)
        view = views.render(images.read_image(tmp_path / f"{channels}.png"))
        assert view.getpixel((0, 0)) == ((0, 188, 255) if channels == 3 else (127, 221, 255))


def test_part_is_marked_where_it_is():
    view = Image.new("RGB", (48, 32), "red")
    marked = views.mark_part(view, (12, 8, 24, 16))
    assert marked.size == (views.PREVIEW_PX, 640)
    rows, columns = np.nonzero((np.asarray(marked) == 255).all(axis=2))
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (240, 480, 160, 320)


def test_figures_have_captions_and_texts_and_exact_pixels():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    text = views.make_figures([("a <b>", 'left "of" it', image)])
    assert "<figcaption>a &lt;b&gt;</figcaption>" in text
    assert 'alt="left &quot;of&quot; it"' in text
    content = base64.b64decode(re.search(r"base64,([^\"]+)", text)[1])
    np.testing.assert_array_equal(Image.open(io.BytesIO(content)), image)


def test_floats_of_any_range_are_shown_and_compared_in_the_same_range(tmp_path):
    grey = np.linspace(-300, 700, 30 * 40, dtype=np.float32).reshape(30, 40, 1)
    low, high = views.load_views(save(tmp_path / "low.tif", grey), save(tmp_path / "high.tif", grey.clip(0, 500)))
    expected = (grey[..., 0] + 300) / 1000 * 255
    np.testing.assert_allclose(np.asarray(low, float), expected, atol=1)
    np.testing.assert_allclose(np.asarray(high, float), expected.clip(0.3 * 255, 0.8 * 255), atol=1)
