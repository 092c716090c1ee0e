"""Tests that everything in AVIF and HEIC files is kept, adjusted or named as left out."""

import dataclasses
import io
import struct

import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image
from torch.nn import functional

from esrgan import images
from esrgan.errors import ImageError
from esrgan.images import samples
from esrgan.images.heif_boxes import Inventory
from esrgan.images.vips import load_vips

RNG = np.random.default_rng(0)
CORNERS = np.zeros((32, 64, 3), np.uint8)
CORNERS[:16, :32], CORNERS[:16, 32:], CORNERS[16:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)  # black is last
DEPTH = b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth\0"
MATTE = b"urn:com:apple:photo:2018:aux:portraiteffectsmatte\0"
GAIN = b"urn:com:apple:photo:2020:aux:hdrgainmap\0"


def box(kind, *contents):
    data = b"".join(contents)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def encode_avif_420(pixels):
    """Return an AVIF file of 10 bits with colours of half the width and the height."""
    vips = load_vips()
    height, width, bands = pixels.shape
    image = vips.Image.new_from_memory(pixels.tobytes(), width, height, bands, "ushort")
    image = image.copy(interpretation="rgb16")
    return image.heifsave_buffer(compression="av1", Q=95, subsample_mode="on", bitdepth=10)


def split(data):
    found = []
    while data:
        size = int.from_bytes(data[:4])
        found.append((data[4:8], data[8:size]))
        data = data[size:]
    return found


def make(suffix, **options):
    memory = io.BytesIO()
    if suffix == "avif":
        Image.fromarray(CORNERS).save(memory, "AVIF", quality=95, subsampling="4:4:4", **options)
    else:
        pillow_heif.from_pillow(Image.fromarray(CORNERS)).save(memory, quality=95, chroma=444, **options)
    return memory.getvalue()


def add(data, items=(), properties=(), references=(), groups=(), behind=b""):
    """Return a file with additions to its boxes.

    Args:
        data: An AVIF or HEIC file.
        items: Number, kind, flags and properties of each; the pixels are those of the first image.
        properties: Number of the item and box of each.
        references: Kind, origin and targets of each.
        groups: Kind and members of each.
        behind: Bytes behind the last box.
    """
    top = split(data)
    meta = dict(split(dict(top)[b"meta"][4:]))
    properties = [*properties, *((number, prop) for number, _, _, own in items for prop in own)]
    image = int.from_bytes(meta[b"pitm"][4:6])
    # items
    count = int.from_bytes(meta[b"iinf"][4:6]) + len(items)
    infos = b"".join(
        box(
            b"infe",
            bytes([2, 0, 0, flags]),
            struct.pack(">HH", number, 0),
            kind + b"\0" * (kind[:4] != b"mime") if kind[:4] != b"mime" else kind[:4] + b"\0" + kind[5:] + b"\0",
        )
        for number, kind, flags, _ in items
    )
    meta[b"iinf"] = meta[b"iinf"][:4] + struct.pack(">H", count) + meta[b"iinf"][6:] + infos
    # properties
    iprp = split(meta[b"iprp"])
    ipco, ipma = dict(iprp)[b"ipco"], dict(iprp)[b"ipma"]
    entries, position = {}, 8
    for _ in range(int.from_bytes(ipma[4:8])):
        number, size = struct.unpack_from(">HB", ipma, position)
        entries[number] = ipma[position + 3 : position + 3 + size]
        position += 3 + size
    shared = entries[image]
    for number, kind, _, _ in items:
        entries[number] = shared if kind in (b"av01", b"hvc1") else b""
    for number, prop in properties:
        ipco += prop
        entries[number or image] += bytes(
            [len(split(ipco)) | (0x80 if prop[4:8] in (b"irot", b"imir", b"clap") else 0)]
        )
    ipma = ipma[:4] + struct.pack(">I", len(entries))
    ipma += b"".join(struct.pack(">HB", number, len(own)) + own for number, own in sorted(entries.items()))
    meta[b"iprp"] = box(b"ipco", ipco) + box(b"ipma", ipma)
    # references and groups
    if references:
        old = meta.get(b"iref", bytes(4))
        meta[b"iref"] = old + b"".join(
            box(kind, struct.pack(f">HH{len(to)}H", origin or image, len(to), *(item or image for item in to)))
            for kind, origin, to in references
        )
    if groups:
        meta[b"grpl"] = b"".join(
            box(kind, bytes(4), struct.pack(f">II{len(to)}I", 99, len(to), *(item or image for item in to)))
            for kind, to in groups
        )
    # places of the items
    iloc = meta[b"iloc"]
    version = iloc[0]
    number, position, places = int.from_bytes(iloc[6:8]), 8, []
    for _ in range(number):
        head = 2 + 2 * version + 2 + (iloc[5] >> 4) + 2  # up to the number of extents
        entry = iloc[position : position + head]
        assert entry[-2:] == b"\0\1"
        places.append([entry, *struct.unpack_from(">II", iloc, position + head)])
        position += head + 8
    first = next(place for place in places if int.from_bytes(place[0][:2]) == image)
    places += [[struct.pack(">H", number) + first[0][2:], *first[1:]] for number, *_ in items]

    def build(shift):
        table = iloc[:6] + struct.pack(">H", len(places))
        table += b"".join(
            entry + struct.pack(">II", start + (shift if not version or entry[3] == 0 else 0), length)
            for entry, start, length in places
        )
        return box(
            b"meta",
            dict(top)[b"meta"][:4],
            *(box(kind, table if kind == b"iloc" else content) for kind, content in meta.items()),
        )

    shift = len(build(0)) - len(dict(top)[b"meta"]) - 8
    return b"".join(build(shift) if kind == b"meta" else box(kind, content) for kind, content in top) + behind


def read(tmp_path, data, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data)
    return images.read_image(path)


def corners(frame):
    """Return the corners' colours, clockwise from the upper left: red, green, blue or black (k)."""
    places = (frame[4, 4], frame[4, -5], frame[-5, -5], frame[-5, 4])
    return "".join("k" if pixel.max() < 128 else "rgb"[int(pixel.argmax())] for pixel in places)


def aux(urn):
    return box(b"auxC", bytes(4), urn)


CASES = {
    "thumbnail": ({"items": [(50, b"I", 1, [])], "references": [(b"thmb", 50, [0])]}, "thumbnail"),
    "depth": ({"items": [(50, b"I", 1, [aux(DEPTH)])], "references": [(b"auxl", 50, [0])]}, "depth map"),
    "depth and its XMP": (
        {
            "items": [(50, b"I", 1, [aux(DEPTH)]), (51, b"mime application/rdf+xml", 1, [])],
            "references": [(b"auxl", 50, [0]), (b"cdsc", 51, [50])],
        },
        "depth map",
    ),
    "matte": (
        {"items": [(50, b"I", 0, [aux(MATTE)])], "references": [(b"auxl", 50, [0])]},
        "auxiliary image portraiteffectsmatte",
    ),
    "gain map": ({"items": [(50, b"I", 1, [aux(GAIN)])], "references": [(b"auxl", 50, [0])]}, "gain map"),
    "gain map of ISO 21496": (
        {
            "items": [(50, b"I", 1, []), (51, b"tmap", 0, [])],
            "references": [(b"dimg", 51, [0, 50])],
            "groups": [(b"altr", [51, 0])],
        },
        "HDR gain map",
    ),
    "alternative": ({"items": [(50, b"I", 0, [])], "groups": [(b"altr", [0, 50])]}, "alternative image"),
    "hidden": ({"items": [(50, b"I", 1, [])]}, "hidden image"),
    "text": (
        {"items": [(50, b"mime text/plain", 1, [])], "references": [(b"cdsc", 50, [0])]},
        "data of type text/plain",
    ),
    "uri": ({"items": [(50, b"uri ", 1, [])], "references": [(b"cdsc", 50, [0])]}, "data with a URI"),
    "description": ({"properties": [(0, box(b"udes", bytes(4), b"en\0name\0text\0tag\0"))]}, "description"),
    "unknown property": ({"properties": [(0, box(b"zzzz", b"1234"))]}, "property zzzz"),
    "box": ({"behind": box(b"uuid", bytes(16))}, "box uuid"),
    "video": ({"behind": box(b"mpvd", bytes(16))}, "video"),
    "sequence": ({"behind": box(b"moov", bytes(16))}, "image sequence"),
}


@pytest.mark.parametrize("suffix", ["avif", "heic"])
@pytest.mark.parametrize("case", CASES)
def test_what_is_left_out_is_named(tmp_path, case, suffix):
    options, label = CASES[case]
    kind = b"av01" if suffix == "avif" else b"hvc1"
    items = [(number, kind if name == b"I" else name, *rest) for number, name, *rest in options.get("items", ())]
    image = read(tmp_path, add(make(suffix), **{**options, "items": items}), suffix)
    assert image.notes == (f"{label} not kept",)
    assert image.frames[0].shape == CORNERS.shape


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_bytes_and_videos_behind_the_image_are_counted(tmp_path, suffix):
    video = box(b"ftyp", b"mp42", bytes(4)) + box(b"moov", bytes(8))
    for behind in (b"12345", bytes(9), video):
        assert read(tmp_path, make(suffix) + behind, suffix).notes == (f"{len(behind)} bytes after the image not kept",)


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_what_cannot_be_upscaled_is_refused(tmp_path, suffix):
    kind = b"av01" if suffix == "avif" else b"hvc1"
    alpha = aux(b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0")
    cases = {
        "got 3 images": {"items": [(50, kind, 0, []), (51, kind, 0, [])]},
        "colours multiplied with alpha": {
            "items": [(50, kind, 1, [alpha])],
            "references": [(b"auxl", 50, [0]), (b"prem", 0, [50])],
        },
    }
    for match, options in cases.items():
        with pytest.raises(ImageError, match=match):
            read(tmp_path, add(make(suffix), **options), suffix)
    data = make(suffix)
    if suffix == "avif":
        place, size = data.index(b"ispe") + 8, struct.pack(">II", 2**30, 9)
    else:  # the encoder has padded the image
        place, size = data.index(b"clap") + 4, struct.pack(">4I", 2**30, 1, 9, 1)
    with pytest.raises(ImageError, match="at most 536870912 pixels"):
        read(tmp_path, data[:place] + size + data[place + len(size) :], suffix)


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_the_image_is_turned_once(tmp_path, suffix):
    for name, turn, expected in (("irot", b"\1", "gkbr"), ("irot", b"\3", "brgk"), ("imir", b"\1", "grbk")):
        turned = add(make(suffix), properties=[(0, box(name.encode(), turn))])
        image = read(tmp_path, turned, suffix)
        assert corners(image.frames[0]) == expected
        assert not image.notes
        assert corners(images.read_pixels(tmp_path / f"a.{suffix}", 3)) == expected
        images.write_image(tmp_path / f"b.{suffix}", image, overwrite=True)
        assert corners(images.read_image(tmp_path / f"b.{suffix}").frames[0]) == expected


@pytest.mark.parametrize("block_samples", [samples.BLOCK_SAMPLES, 1])  # one band, and one for each row of blocks
def test_repeated_colours_are_interpolated_as_pytorch_does(monkeypatch, block_samples):
    monkeypatch.setattr(samples, "BLOCK_SAMPLES", block_samples)
    luma = RNG.uniform(0.4, 0.6, (10, 14, 1))
    colours = torch.from_numpy(RNG.uniform(-0.1, 0.1, (1, 2, 5, 7)))
    matrix = [[0, 1.402], [-0.202008 / 0.587, -0.419198 / 0.587], [1.772, 0]]  # BT.601, of Cb and Cr
    repeated, expected = (
        luma
        + functional.interpolate(colours, scale_factor=2, **mode)[0].permute(1, 2, 0).numpy() @ np.transpose(matrix)
        for mode in ({}, {"mode": "bilinear", "align_corners": False})
    )
    pixels = np.rint(65535 * np.concatenate([repeated, luma], 2)).astype(np.uint16)
    samples.interpolate_repeated_colours(pixels, 0.299, 0.114)
    np.testing.assert_allclose(pixels / 65535, np.concatenate([expected, luma], 2), atol=2e-5)


@pytest.mark.parametrize("kind", ["avif", "avif of 10 bits", "heic", "heic of 10 bits"])
@pytest.mark.parametrize("case", ["plain", "alpha", "turned"])
def test_colours_of_lower_resolution_are_interpolated(tmp_path, kind, case):
    """As libavif interpolates them, which training uses for AVIF; libheif repeats them."""
    suffix, is_deep = kind[:4], "10" in kind
    y, x = np.mgrid[:96, :128] / 8
    expected = 0.5 + 0.4 * np.sin(np.stack([x, y, -x, 0 * x], 2))
    expected[..., 3] = np.where(x > 3, 1, 0.3)
    expected = expected[..., : 4 if case == "alpha" else 3]
    pixels = np.rint(expected * (65535 if is_deep else 255)).astype(np.uint16 if is_deep else np.uint8)
    path = tmp_path / f"a.{suffix}"
    if kind == "avif":
        Image.fromarray(pixels).save(path, quality=95, subsampling="4:2:0")
    elif suffix == "avif":
        path.write_bytes(encode_avif_420(pixels))
    else:
        mode = ("RGBA" if case == "alpha" else "RGB") + (";16" if is_deep else "")
        pillow_heif.from_bytes(mode, (128, 96), pixels.tobytes()).save(path, quality=95, chroma=420)
    if case == "turned":
        path.write_bytes(add(path.read_bytes(), properties=[(0, box(b"irot", b"\1"))]))
        expected = np.rot90(expected)
    found = images.read_image(path)
    assert (found.bits > 8) == is_deep
    peak = 65535 if is_deep else 255
    error = np.abs(found.frames[0] / peak - expected)[2:-2, 2:-2, :3]
    assert error.mean() < 0.006  # repeated: 0.014
    if not is_deep:
        strict = images.read_pixels(path, expected.shape[2])
        assert np.abs(found.frames[0].astype(int) - strict).max() <= 3


@pytest.mark.parametrize("suffix", ["avif", "heic"])
@pytest.mark.parametrize("size", [(95, 127), (96, 127), (95, 128)])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_images_of_odd_size_are_turned_after_decoding(tmp_path, suffix, size, has_alpha):
    """libheif turns halved colours before it converts them: the last column or row has colours of other pixels."""
    y, x = np.mgrid[: size[0], : size[1]] / 8
    pixels = np.rint(128 + 100 * np.sin(np.stack([x, y, -x, y - x], 2))).astype(np.uint8)[..., : 3 + has_alpha]
    path = tmp_path / f"a.{suffix}"
    if suffix == "avif":
        Image.fromarray(pixels).save(path, quality=95, subsampling="4:2:0")
    else:
        pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, quality=95, chroma=420)
    content = path.read_bytes()
    items = [0, 2] if has_alpha else [0]
    turns = {
        (): pixels,
        ((b"irot", 2),): np.rot90(pixels, 2),
        ((b"imir", 0),): pixels[::-1],
        ((b"irot", 1), (b"imir", 1)): np.rot90(pixels)[:, ::-1],
    }
    for steps, expected in turns.items():
        properties = [(item, box(kind, bytes([turn]))) for item in items for kind, turn in steps]
        path.write_bytes(add(content, properties=properties))
        found = images.read_image(path).frames[0]
        error = np.abs(found.astype(int) - expected)
        assert error.max() < 24
        assert error.mean() < 2


@pytest.mark.parametrize("matrix", [1, 4, 6, 7, 9])
def test_luma_is_kept_whatever_the_matrix(tmp_path, matrix):
    """libavif interpolates in the colours of the file's matrix (ITU-T H.273, table 4)."""
    y, x = np.mgrid[:96, :128] / 8
    pixels = np.rint(128 + 100 * np.sin(np.stack([x, y, -x], 2))).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.avif", quality=95, subsampling="4:2:0")
    content = (tmp_path / "a.avif").read_bytes()
    place = content.index(b"nclx") + 8
    (tmp_path / "a.avif").write_bytes(content[:place] + struct.pack(">H", matrix) + content[place + 2 :])
    found = images.read_image(tmp_path / "a.avif").frames[0].astype(int)
    assert np.abs(found - images.read_pixels(tmp_path / "a.avif", 3)).mean() < 0.5


def test_tiles_say_that_colours_are_halved():
    """A HEIC file of a phone is a grid, whose tiles have the codec's properties (ISO/IEC 23008-12, §6.6.2.3)."""
    hevc = [(b"hvcC", bytes(16) + b"\xfd", 0), (b"hvcC", bytes(16) + b"\xfe", 0)]  # 4:2:0 and 4:2:2
    grid = {"primary": 9, "items": {9: b"grid", 1: b"hvc1"}, "references": {(b"dimg", 9): {1}}, "definitions": hevc}
    assert Inventory(**grid, associations={1: [1]}).has_halved_colours
    assert not Inventory(**grid, associations={1: [2]}).has_halved_colours


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_orientation_in_exif_is_not_applied(tmp_path, suffix):
    """ISO/IEC 23008-12, annex A: only the properties irot and imir turn the image."""
    exif = Image.Exif()
    exif[0x100] = 64
    exif[0x113] = 6
    data = make(suffix, exif=exif.tobytes())
    order = "<" if b"II*\0" in data else ">"
    entry = struct.pack(f"{order}HHIH", 0x113, 3, 1, 6)
    assert data.count(entry) == 1
    image = read(tmp_path, data.replace(entry, struct.pack(f"{order}H", 0x112) + entry[2:]), suffix)
    assert corners(image.frames[0]) == corners(images.read_pixels(tmp_path / f"a.{suffix}", 3)) == "rgkb"
    large = dataclasses.replace(image, frames=tuple(frame.repeat(2, 0).repeat(2, 1) for frame in image.frames))
    images.write_image(tmp_path / f"b.{suffix}", large)
    again = images.read_image(tmp_path / f"b.{suffix}")
    assert corners(again.frames[0]) == "rgkb"
    found = Image.Exif()
    found.load(again.exif)
    assert (found[0x112], found[0x100]) == (1, 128)


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_cut_image(tmp_path, suffix):
    clap = box(b"clap", struct.pack(">IIIIiIiI", 32, 1, 16, 1, -16, 1, -8, 1))  # the upper left quarter
    image = read(tmp_path, add(make(suffix), properties=[(0, clap)]), suffix)
    assert image.frames[0].shape == (16, 32, 3)
    assert corners(image.frames[0]) == "rrrr"
    for steps, expected in (("irot clap", "kkkk"), ("clap irot", "rrrr")):  # in this order
        boxes = {"irot": box(b"irot", b"\2"), "clap": clap}
        turned = read(tmp_path, add(make(suffix), properties=[(0, boxes[step]) for step in steps.split()]), suffix)
        assert corners(turned.frames[0]) == expected
    if suffix == "avif":
        with pytest.raises(ImageError, match="without a cut"):
            images.read_pixels(tmp_path / "a.avif", 3)
    else:
        assert images.read_pixels(tmp_path / "a.heic", 3).shape == (16, 32, 3)


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_shape_of_pixels(tmp_path, suffix):
    for turn, expected in ((0, (4, 3)), (1, (3, 4))):
        properties = [(0, box(b"pasp", struct.pack(">II", 8, 6))), (0, box(b"irot", bytes([turn])))]
        image = read(tmp_path, add(make(suffix), properties=properties), suffix)
        assert image.pixel_aspect == expected
        assert not image.notes
        notes = images.write_image(tmp_path / f"b.{suffix}", image, overwrite=True)
        if suffix == "avif":
            assert notes == ("AVIF cannot store pixel aspect ratio",)
        else:
            assert images.read_image(tmp_path / "b.heic").pixel_aspect == expected


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_colours_of_hdr(tmp_path, suffix):
    """HEIC keeps the colour tag and the light levels; other formats and AVIF name them."""
    data = make(suffix)
    clli = box(b"clli", struct.pack(">HH", 1000, 400))
    if suffix == "avif":
        place = data.index(b"colrnclx") + 8
        data = data[:place] + struct.pack(">HH", 9, 16) + data[place + 4 :]
        image = read(tmp_path, add(data, properties=[(0, clli)]), suffix)
        label = "colour tag (primaries 9, transfer 16, PQ of HDR)"
        assert image.notes == (f"{label} not kept", "HDR light levels not kept")
        return
    data = make(suffix, color_primaries=9, transfer_characteristics=18)
    image = read(tmp_path, add(data, properties=[(0, clli)]), suffix)
    assert not image.notes
    assert not images.write_image(tmp_path / "b.heic", image)
    found = pillow_heif.open_heif(tmp_path / "b.heic").info
    assert found["nclx_profile"]["color_primaries"] == 9
    assert found["nclx_profile"]["transfer_characteristics"] == 18
    assert found["content_light_level"] == {"max_content_light_level": 1000, "max_pic_average_light_level": 400}
    assert images.write_image(tmp_path / "b.png", image) == (
        "PNG cannot store HDR light levels, colour tag (primaries 9, transfer 18, HLG of HDR)",
    )


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_files_that_are_cut_short_are_refused(tmp_path, suffix):
    data = make(suffix)
    for length in range(16, len(data), 3):
        with pytest.raises(ImageError):
            read(tmp_path, data[:length], suffix)


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_exif_tags_that_no_library_knows_are_kept(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x4746], exif[0xFDE8] = 5, "of another program"  # Rating, and a number that no standard has
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    images.write_image(tmp_path / f"a.{suffix}", images.ImageData((CORNERS,), exif=block))
    image = images.read_image(tmp_path / f"a.{suffix}")
    assert (image.exif, image.notes) == (block, ())
    if suffix == "avif":
        assert Image.open(tmp_path / "a.avif").getexif()[0x4746] == 5
