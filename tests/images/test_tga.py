"""Tests of TGA files."""

import struct

import pytest

from esrgan import images
from tests.helpers.image_files import check_round_trip, noise, to_pillow


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("rle", [False, True])
@pytest.mark.parametrize("orientation", [1, -1])
def test_tga_keeps_its_layout(tmp_path, channels, rle, orientation):
    pixels = noise(channels)
    to_pillow(pixels).save(tmp_path / "a.tga", rle=rle, orientation=orientation, id_section=b"name")
    data = bytearray((tmp_path / "a.tga").read_bytes())
    data[8:12] = struct.pack("<HH", 5, 7)
    (tmp_path / "a.tga").write_bytes(data[:-26])  # without a footer, as in version 1
    written, notes = check_round_trip(tmp_path, "a.tga", pixels)
    assert (written[2] > 8) == rle
    assert bool(written[17] & 0x20) == (orientation > 0)
    assert struct.unpack("<HH", written[8:12]) == (10, 14)
    assert written[18:22] == b"name"
    assert notes == ()


def test_tga_alpha_that_is_not_used_is_dropped(tmp_path):
    pixels = noise(4)
    pixels[..., 3] = 0
    to_pillow(pixels).save(tmp_path / "a.tga")
    data = bytearray((tmp_path / "a.tga").read_bytes())
    data[17] &= 0xF0
    (tmp_path / "a.tga").write_bytes(data)
    check_round_trip(tmp_path, "a.tga", pixels[..., :3])


def test_tga_is_known_by_its_footer(tmp_path):
    to_pillow(noise(3)).save(tmp_path / "a.tga")
    (tmp_path / "a.tga").rename(tmp_path / "a.png")
    assert images.read_image(tmp_path / "a.png").file_format == "TGA"


def test_tga_areas_are_named(tmp_path):
    to_pillow(noise(3)).save(tmp_path / "a.tga")
    data = (tmp_path / "a.tga").read_bytes()
    data = data[:-26] + bytes(495) + struct.pack("<II", len(data) - 26, 0) + data[-18:]
    (tmp_path / "a.tga").write_bytes(data)
    assert "TGA extension area" in images.read_image(tmp_path / "a.tga").notes[0]


def test_tga_alpha_is_dropped_if_the_file_calls_it_absent_or_undefined(tmp_path):
    pixels = noise(4)
    to_pillow(pixels).save(tmp_path / "a.tga")
    data = (tmp_path / "a.tga").read_bytes()
    for attributes, kind in ((0, "absent"), (1, "undefined"), (2, None), (3, None)):
        area = bytes(494) + bytes([attributes]) + struct.pack("<II", len(data) - 26, 0) + data[-18:]
        (tmp_path / "a.tga").write_bytes(data[:-26] + area)
        image = images.read_image(tmp_path / "a.tga")
        assert image.frames[0].tolist() == pixels[..., : 3 if kind else 4].tolist()
        assert [note for note in image.notes if "alpha" in note] == (
            [f"alpha that the file calls {kind} not kept"] if kind else []
        )


def test_tga_of_fifteen_bits(tmp_path):
    words = struct.pack("<2H", 0x7C00, 0x801F)
    for bits, alpha in ((15, 0), (15, 1), (16, 0)):
        head = struct.pack("<3B5xHHHHBB", 0, 0, 2, 0, 0, 2, 9, bits, alpha | 0x20)
        (tmp_path / "a.tga").write_bytes(head + 9 * words)
        assert images.read_image(tmp_path / "a.tga").frames[0].tolist() == [[[255, 0, 0], [0, 0, 255]]] * 9
