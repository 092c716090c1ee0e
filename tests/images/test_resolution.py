"""The resolution that a file states is kept, scaled with the size, or set, wherever it is stored."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from esrgan.images import ImageData, read_image, set_resolution, write_image
from esrgan.images.exif import read_resolution
from tests.helpers.models import pixels

XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:XResolution="300/1" tiff:YResolution="150/1"/>
</rdf:RDF></x:xmpmeta>"""


@pytest.fixture
def photo(tmp_path):
    """Return a JPEG whose resolution is stated in JFIF, EXIF, XMP and Photoshop's resources."""
    exif = Image.Exif()
    exif[0x11A], exif[0x11B], exif[0x128] = 300.0, 150.0, 2
    memory = io.BytesIO()
    Image.fromarray(pixels(8, 10, 3)).save(memory, "JPEG", dpi=(300, 150), exif=exif, xmp=XMP)
    data = memory.getvalue()
    resource = b"8BIM" + struct.pack(">HHI", 1005, 0, 16) + struct.pack(">IHHIHH", 300 << 16, 1, 1, 150 << 16, 1, 1)
    segment = b"Photoshop 3.0\0" + resource
    path = tmp_path / "photo.jpg"
    path.write_bytes(data[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[2:])
    return path


def upscaled(path, resolution):
    image = read_image(path)
    frames = tuple(frame.repeat(2, 0).repeat(2, 1) for frame in image.frames)
    return set_resolution(replace(image, frames=frames), resolution)


def read_places(path):
    """Return the resolutions that a JPEG states in JFIF, EXIF, Photoshop's resources and XMP."""
    data, found = path.read_bytes(), read_image(path)
    start = data.index(b"8BIM" + struct.pack(">H", 1005)) + 12
    resource = tuple(number >> 16 for number in struct.unpack_from(">I4xI", data, start))
    numbers = [text.split(b'"')[1].split(b"/") for text in found.xmp.split(b"Resolution=")[1:]]
    return [found.dpi, read_resolution(found.exif), resource, tuple(int(top) / int(bottom) for top, bottom in numbers)]


@pytest.mark.parametrize(
    ("resolution", "x", "y"), [("keep", 300, 150), ("scale", 600, 300), (72, 72, 72), (450.5, 450.5, 450.5)]
)
def test_jpeg_states_one_resolution_everywhere(photo, tmp_path, resolution, x, y):
    write_image(tmp_path / "out.jpg", upscaled(photo, resolution))
    assert read_places(tmp_path / "out.jpg") == [
        (round(x), round(y)),
        pytest.approx((x, y), rel=0.01),
        (int(x), int(y)),
        pytest.approx((x, y), rel=0.01),
    ]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg"])
def test_every_format_with_a_resolution_states_it(tmp_path, suffix):
    image = ImageData((np.zeros((8, 10, 3), np.uint8),), dpi=(100, 100))
    write_image(tmp_path / f"a{suffix}", image)
    for resolution, expected in (("keep", 100), ("scale", 200), (250, 250)):
        write_image(tmp_path / f"b{suffix}", upscaled(tmp_path / f"a{suffix}", resolution), overwrite=True)
        assert read_image(tmp_path / f"b{suffix}").dpi == pytest.approx((expected, expected), rel=1e-3)


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".png", ".jpg"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_resolution_only_in_exif_is_stated_by_every_format(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x112], exif[0x11A], exif[0x11B], exif[0x128] = orientation, 300.0, 150.0, 2
    Image.new("RGB", (8, 6)).save(tmp_path / "a.webp", exif=exif)
    for resolution, factor in (("keep", 1), ("scale", 2)):
        write_image(tmp_path / f"b{suffix}", upscaled(tmp_path / "a.webp", resolution), overwrite=True)
        x, y = (300, 150) if orientation == 1 else (150, 300)
        assert read_image(tmp_path / f"b{suffix}").dpi == pytest.approx((x * factor, y * factor), rel=1e-3)


def test_places_that_contradict_one_another_get_the_resolution_that_is_set(photo, tmp_path):
    data = photo.read_bytes()
    data = data.replace(struct.pack(">II", 16, 300 << 16), struct.pack(">II", 16, 96 << 16))
    place = data.index(b"JFIF\0")
    for jfif in (struct.pack(">BHH", 1, 72, 72), struct.pack(">BHH", 0, 1, 1)):
        photo.write_bytes((data[: place + 7] + jfif + data[place + 12 :]).replace(b'"300/1"', b'"096/1"'))
        write_image(tmp_path / "out.jpg", upscaled(photo, 600), overwrite=True)
        assert read_places(photo) == [(72, 72) if jfif[0] else None, (300, 150), (96, 150), (96, 150)]
        assert read_places(tmp_path / "out.jpg") == [pytest.approx((600, 600), rel=0.01)] * 4


@pytest.mark.parametrize("dpi", [(0.3, 0.3), (70_000, 300)])
def test_a_resolution_that_jpeg_cannot_state_is_named(tmp_path, dpi):
    image = ImageData((np.zeros((8, 10, 3), np.uint8),), dpi=dpi)
    (note,) = write_image(tmp_path / "a.jpg", image)
    assert note.startswith(f"resolution of {dpi[0]:g} × {dpi[1]:g} pixels per inch not kept, because JPEG")
    assert read_image(tmp_path / "a.jpg").dpi is None


def test_the_resolution_in_exif_is_that_of_the_stored_image(tmp_path):
    exif = Image.Exif()
    exif[0x112], exif[0x11A], exif[0x11B], exif[0x128] = 8, 300.0, 150.0, 2
    Image.new("RGB", (8, 6)).save(tmp_path / "a.webp", exif=exif)
    write_image(tmp_path / "b.webp", upscaled(tmp_path / "a.webp", 300))
    assert read_resolution(read_image(tmp_path / "b.webp").exif) == pytest.approx((300, 300), rel=1e-3)


def test_a_file_without_resolution_gets_the_one_that_is_set(tmp_path):
    write_image(tmp_path / "a.png", ImageData((np.zeros((8, 10, 3), np.uint8),)))
    for resolution, expected in (("keep", None), ("scale", None), (300, pytest.approx((300, 300), rel=1e-3))):
        write_image(tmp_path / "b.png", upscaled(tmp_path / "a.png", resolution), overwrite=True)
        assert read_image(tmp_path / "b.png").dpi == expected
