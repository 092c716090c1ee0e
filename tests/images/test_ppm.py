"""Tests of PPM, PGM and PBM files."""

import numpy as np
import pytest

from esrgan import images
from esrgan.errors import ImageError
from tests.helpers.image_files import noise


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ppm(tmp_path, channels, dtype):
    pixels = noise(channels, dtype)
    peak = np.iinfo(dtype).max
    header = f"P{5 if channels == 1 else 6}\n{pixels.shape[1]} {pixels.shape[0]}\n{peak}\n".encode()
    content = header + pixels.astype(np.dtype(dtype).newbyteorder(">")).tobytes()
    (tmp_path / "a.ppm").write_bytes(content)
    image = images.read_image(tmp_path / "a.ppm")
    np.testing.assert_array_equal(image.frames[0], pixels)
    assert image.notes == ()
    images.write_image(tmp_path / "b.ppm", image)
    assert (tmp_path / "b.ppm").read_bytes() == content
    (tmp_path / "a.ppm").write_bytes(content[:-1])
    with pytest.raises(ImageError):
        images.read_image(tmp_path / "a.ppm")


def test_ppm_variants(tmp_path):
    for content, expected, notes in (
        (b"P6\n# x\n1 1\n255\n\1\2\3rest", [1, 2, 3], ("comment not kept", "4 bytes after the image not kept")),
        (b"P6\n1 1\n1023\n\3\xff\0\0\0\1", [65535, 0, 64], ("samples of 0 to 1023 changed to 0 to 65535",)),
        (b"P5\n1 1\n1023\n\3\xff", [65535], ("samples of 0 to 1023 changed to 0 to 65535",)),
        (b"P2\n1 1\n15\n15\n", [255], ("samples of 0 to 15 changed to 0 to 255",)),
        (b"P3\n1 1\n255\n1 2 3\n", [1, 2, 3], ()),
        (b"P1\n1 1\n1\n", [0], ()),
        (b"P4\n1 1\n\0", [255], ()),
        (b"P4\n1 1\n\0\n", [255], ()),
        (b"P4\n1 1\n\0P4\n1 1\n\0", [255], ("8 bytes after the image not kept",)),
        (
            b"P4\n8 2\n12ABC",
            [255, 255, 0, 0, 255, 255, 255, 0, 255, 255, 0, 0, 255, 255, 0, 255],
            ("3 bytes after the image not kept",),
        ),
        (b"P5\n1 1\n255\n\n\r\n", [10], ()),
        (b"P5\n1 1\n255\n\nx\r\n", [10], ("3 bytes after the image not kept",)),
        (b"P3\n1 1\n255\n1 2 3\nP3\n1 1\n255\n4 5 6\n", [1, 2, 3], ("further images in the file not kept",)),
    ):
        (tmp_path / "a.pnm").write_bytes(content)
        image = images.read_image(tmp_path / "a.pnm")
        assert image.frames[0].ravel().tolist() == expected
        assert image.notes == notes


def test_truncated_ppm_of_sixteen_bits_is_named(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6\n1 1\n65535\n12345")
    with pytest.raises(ImageError, match="the file is truncated"):
        images.read_image(tmp_path / "a.ppm")


def test_colours_are_not_written_as_pgm(tmp_path):
    images.write_image(tmp_path / "a.pgm", images.ImageData((noise(1),)))
    with pytest.raises(ImageError, match=r"expected a grey image \(.pgm\) for PPM, got an RGB image; write .ppm"):
        images.write_image(tmp_path / "b.pgm", images.ImageData((noise(3),)))
