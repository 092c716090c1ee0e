"""Tests that what TIFF files say of structure, calibration and place is adjusted to the new size, or named."""

import dataclasses
import struct

import numpy as np
import pytest
import tifffile

from esrgan import images
from tests.helpers.image_files import noise

PLAIN = {"metadata": None, "software": False}
KEYS = {kind: (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, kind) for kind in (1, 2)}  # 1: area, 2: point


def upscale(path, factor=4, suffix=".tif"):
    """Read a file, enlarge it, write it, and return the new path and all messages."""
    image = images.read_image(path)
    frames = tuple(frame.repeat(factor, axis=0).repeat(factor, axis=1) for frame in image.frames)
    target = path.with_name(f"b{suffix}")
    notes = images.write_image(target, dataclasses.replace(image, frames=frames), overwrite=True)
    return target, (*image.notes, *notes)


def first_tags(path):
    with tifffile.TiffFile(path) as file:
        return {tag.code: tag.value for tag in file.pages[0].tags}


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_imagej_hyperstack_stays_one(tmp_path, byteorder, dtype):
    stack = noise(12, dtype).transpose(2, 0, 1).reshape(2, 3, 2, 9, 14)
    metadata = {
        "axes": "TZCYX",
        "unit": "um",
        "spacing": 3.5,
        "finterval": 0.25,
        "Labels": [f"l{i}" for i in range(12)],
    }
    metadata |= {"Ranges": (0.0, 9.0, 1.0, 8.0), "xorigin": 5.0, "Info": "text"}
    options = {"imagej": True, "resolution": (2.5, 5), "byteorder": byteorder, "metadata": metadata}
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ()
    with tifffile.TiffFile(target) as file:
        assert file.is_imagej
        assert file.series[0].shape == (2, 3, 2, 36, 56)
        np.testing.assert_array_equal(file.series[0].asarray()[..., ::4, ::4], stack)
        found = file.imagej_metadata
        assert len(file.pages) == 12
        assert file.pages[11].dataoffsets[0] - file.pages[0].dataoffsets[0] == 11 * 36 * 56 * stack.itemsize
    expected = {"unit": "um", "spacing": 3.5, "finterval": 0.25, "slices": 3, "frames": 2, "channels": 2, "xorigin": 20}
    assert {key: found[key] for key in expected} == expected
    assert (found["Labels"], found["Info"], list(found["Ranges"])) == (metadata["Labels"], "text", [0, 9, 1, 8])
    tags = first_tags(target)
    assert (tags[282], tags[283], tags[296]) == ((10, 1), (20, 1), 1)
    _, notes = upscale(tmp_path / "a.tif", suffix=".webp") if dtype == np.uint8 else (None, ("description of ImageJ",))
    assert "description of ImageJ" in " ".join(notes)


def test_imagej_regions_are_left_out_with_a_message(tmp_path):
    metadata = {"axes": "ZYX", "ROI": b"Iout" + bytes(60), "Overlays": [b"Iout" + bytes(60)], "Labels": ["a", "b"]}
    tifffile.imwrite(tmp_path / "a.tif", noise(2).transpose(2, 0, 1), imagej=True, metadata=metadata)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ("not kept: regions of interest and overlays of ImageJ",)
    with tifffile.TiffFile(target) as file:
        assert file.imagej_metadata["Labels"] == ["a", "b"]
        assert not {"ROI", "Overlays"} & file.imagej_metadata.keys()


def test_imagej_description_that_is_not_true_is_left_out(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(6).transpose(2, 0, 1), imagej=True, metadata={"axes": "ZYX"})
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole.replace(b"images=6", b"images=9"))
    _, notes = upscale(tmp_path / "a.tif")
    assert notes == ("not kept: description of ImageJ",)
    metadata = {"axes": "ZYX"}
    stack = noise(6).transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, compression="zlib", metadata=metadata)
    _, notes = upscale(tmp_path / "a.tif")
    assert notes == ("not kept: description of ImageJ",)


OME = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="int16" SizeX='14' SizeY="9" SizeZ="%d" SizeC="1" SizeT="1"
 PhysicalSizeX='0.5'><Channel ID="Channel:0"/><TiffData/></Pixels><ROIRef ID="ROI:0"/></Image><ROI ID="ROI:0"><Union>
<Shape><Rectangle X="3" Y="4" Width="5" Height="6"/></Shape></Union></ROI></OME>"""


def test_ome_sizes_and_type_follow_and_regions_are_left_out(tmp_path):
    pixels = noise(1, np.int16)[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", pixels, description=OME % 1, **PLAIN)
    target, notes = upscale(tmp_path / "a.tif")
    assert "not kept: regions of interest in OME-XML" in notes
    with tifffile.TiffFile(target) as file:
        text = file.pages[0].description
        np.testing.assert_array_equal(file.series[0].asarray()[::4, ::4], pixels)
    assert 'Type="float" SizeX="56" SizeY="36"' in text
    assert 'PhysicalSizeX="0.125"' in text
    assert "ROI" not in text
    tifffile.imwrite(tmp_path / "a.tif", pixels, description=OME % 7, **PLAIN)
    _, notes = upscale(tmp_path / "a.tif")
    assert "description of OME-XML" in notes[1]


def centre_on_map(path, column, row):
    """Return where the centre of a pixel is on the map, by the rules of GeoTIFF 1.1."""
    tags = first_tags(path)
    i, j = (column, row) if tags[34735][11] == 2 else (column + 0.5, row + 0.5)
    if 34264 in tags:
        return (np.reshape(tags[34264], (4, 4)) @ (i, j, 0, 1))[:2]
    (a, b, _, x, y, _), (wide, high, _) = tags[33922][:6], tags[33550]
    return np.array([x + (i - a) * wide, y - (j - b) * high])


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("is_matrix", [False, True])
def test_places_on_the_map_stay(tmp_path, kind, is_matrix):
    matrix = (10.0, 1.0, 0.0, 500.0, 2.0, -20.0, 0.0, 900.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    extra = [(34735, "H", 12, KEYS[kind], True)]
    extra += (
        [(34264, "d", 16, matrix, True)]
        if is_matrix
        else [
            (33550, "d", 3, (10.0, 20.0, 0.0), True),
            (33922, "d", 6, (2.0, 3.0, 0.0, 500.0, 900.0, 0.0), True),
        ]
    )
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="rgb", extratags=extra, **PLAIN)
    target, notes = upscale(tmp_path / "a.tif", 3)
    assert notes == ()
    for column, row in ((0, 0), (5, 2)):  # with an odd factor, the centre of a pixel stays the centre of one
        place = centre_on_map(target, 3 * column + 1, 3 * row + 1)
        np.testing.assert_allclose(place, centre_on_map(tmp_path / "a.tif", column, row))


def test_ground_control_points_and_rpcs_follow_the_size(tmp_path):
    points = (0.0, 0.0, 0.0, 7.1, 46.2, 0.0, 14.0, 0.0, 0.0, 7.3, 46.2, 0.0, 14.0, 9.0, 0.0, 7.3, 46.0, 0.0)
    rpc = (-1.0, -1.0, 4.0, 6.0, 46.0, 7.0, 500.0, 5.0, 8.0, 0.1, 0.1, 300.0, *range(80))
    extra = [(33922, "d", 18, points, True), (34735, "H", 12, KEYS[1], True), (50844, "d", 92, rpc, True)]
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="rgb", extratags=extra, **PLAIN)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ()
    tags = first_tags(target)
    np.testing.assert_array_equal(np.reshape(tags[33922], (3, 6)), np.reshape(points, (3, 6)) * [4, 4, 1, 1, 1, 1])
    assert tags[50844] == (-1, -1, 17.5, 25.5, 46, 7, 500, 20, 32, *rpc[9:])


def test_statistics_of_gdal_are_left_out_with_a_message(tmp_path):
    text = """<GDALMetadata><Item name="AREA">forest</Item>
  <Item name="STATISTICS_MEAN" sample="0">127.5</Item><Item name="OFFSET" sample="0" role="offset">3</Item>
</GDALMetadata>"""
    extra = [(42112, "s", 0, text, True)]
    tifffile.imwrite(tmp_path / "a.tif", noise(1)[..., 0], extratags=extra, **PLAIN)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ("not kept: statistics in the metadata of GDAL",)
    found = first_tags(target)[42112]
    assert "forest" in found
    assert 'role="offset">3' in found
    assert "STATISTICS" not in found


@pytest.mark.parametrize(
    ("dtype", "text", "expected"),
    [
        (np.int16, "-32768", -32768),
        (np.float64, "-1.7976931348623157e+308", float(np.finfo(np.float32).min)),
        (np.float64, "nan", float("nan")),
        (np.float64, "-9999.1", float(np.float32(-9999.1))),
        (np.uint32, "4294967295", 2.0**32),
        (np.uint32, "-1", None),
    ],
)
def test_value_for_no_data_is_that_of_the_converted_samples(tmp_path, dtype, text, expected):
    pixels = np.zeros((4, 5), dtype)
    pixels[1, 2] = float(text) if expected is not None else 7
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=[(42113, "s", 0, text, True)], **PLAIN)
    image = images.read_image(tmp_path / "a.tif")
    assert str(image.no_data) == str(None if expected is None else float(expected))
    if expected is not None:
        np.testing.assert_equal(image.frames[0][1, 2, 0], np.float32(image.no_data))
    target, _ = upscale(tmp_path / "a.tif")
    written = first_tags(target).get(42113)
    assert (written is None) == (expected is None)
    if written is not None:
        np.testing.assert_equal(np.float32(written), np.float32(image.no_data))


@pytest.mark.parametrize(("photometric", "stated", "expected"), [(0, 0, 255), (0, 200, 55), (3, 7, 77), (3, 9, None)])
def test_value_for_no_data_follows_inverted_samples_and_palettes(tmp_path, photometric, stated, expected):
    pixels, options = noise(1)[..., 0], {"photometric": "miniswhite"}
    pixels[2, 3] = stated
    if photometric == 3:
        palette = np.random.default_rng(0).integers(0, 2**16, (3, 256), dtype=np.uint16)
        palette[:, 7] = 77 * 257
        palette[:, 9] = palette[:, 8]
        options = {"photometric": "palette", "colormap": palette}
    extra = [(42113, "s", 0, str(stated), True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=extra, **options, **PLAIN)
    target, notes = upscale(tmp_path / "a.tif")
    image = images.read_image(target)
    assert image.no_data == expected
    assert notes == (
        (f"value for no data ({stated}) not kept, because converted samples cannot hold it or tell it from others",)
        if expected is None
        else ()
    )
    if expected is not None:
        assert {*image.frames[0][8, 12]} == {expected}


@pytest.mark.parametrize(("bits", "peak"), [(1, 1), (4, 15)])
@pytest.mark.parametrize("photometric", [0, 1])
def test_value_for_no_data_follows_packed_samples(tmp_path, bits, peak, photometric):
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 8 // bits), 255, np.uint8), photometric=photometric, **PLAIN)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tags = file.pages[0].tags
        for tag, number in ((256, (8 // bits) * 8 // bits), (258, bits)):
            struct.pack_into("<H", data, tags[tag].offset + 8, number)
        struct.pack_into("<HHI4s", data, tags[282].offset, 42113, 2, 3, str(peak).encode().ljust(4, b"\0"))
    (tmp_path / "a.tif").write_bytes(data)
    image = images.read_image(tmp_path / "a.tif")
    assert image.no_data == image.frames[0][0, 0, 0] == (255 if photometric else 0)


def test_resolution_without_unit_and_of_each_page_is_kept(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(noise(3), photometric="rgb", resolution=(16, 11), resolutionunit=1, **PLAIN)
        file.write(noise(3), photometric="rgb", resolution=(300, 150), resolutionunit=2, **PLAIN)
    assert images.read_image(tmp_path / "a.tif").pixel_aspect == (11, 16)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ()
    with tifffile.TiffFile(target) as file:
        found = [tuple(page.tags[tag].value for tag in (282, 283, 296)) for page in file.pages]
    assert found == [((16, 1), (11, 1), 1), ((300, 1), (150, 1), 2)]


@pytest.mark.parametrize("version", ["white is 0", "12 bits"])
def test_what_values_mean_is_left_out_if_they_change(tmp_path, version):
    text = """<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.01</Item>
<Item name="OFFSET" sample="0" role="offset">3</Item><Item name="AREA">forest</Item></GDALMetadata>"""
    pixels, photometric = noise(1, np.uint16)[..., 0], "miniswhite" if version == "white is 0" else "minisblack"
    extra = [(42112, "s", 0, text, True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, extratags=extra, **PLAIN)
    if version == "12 bits":
        data = bytearray((tmp_path / "a.tif").read_bytes())
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            struct.pack_into("<H", data, file.pages[0].tags[258].offset + 8, 12)
        (tmp_path / "a.tif").write_bytes(data)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes[-1] == "not kept: scale and offset in the metadata of GDAL"
    found = first_tags(target)[42112]
    assert "forest" in found
    assert "role" not in found


def test_ranges_of_inverted_images_of_imagej_are_left_out(tmp_path):
    pixels, metadata = noise(2, np.uint16).transpose(2, 0, 1), {"axes": "ZYX", "Labels": ["a", "b"]}
    metadata |= {"min": 500.0, "max": 3600.0, "cf": 0, "c0": 1.0, "c1": 2.0, "vunit": "mm", "Ranges": (500.0, 3600.0)}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, photometric="miniswhite", metadata=metadata)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ("not kept: ranges and calibration of values of ImageJ",)
    with tifffile.TiffFile(target) as file:
        np.testing.assert_array_equal(file.series[0].asarray()[:, ::4, ::4], 65535 - pixels)
        found = file.imagej_metadata
    assert (found["slices"], found["Labels"]) == (2, ["a", "b"])
    assert not {"min", "max", "cf", "c0", "c1", "vunit", "Ranges"} & found.keys()


def test_alpha_behind_other_bands_keeps_its_meaning(tmp_path):
    pixels = noise(5)
    options = {"photometric": "rgb", "planarconfig": "contig", "extrasamples": [0, 2]}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options, **PLAIN)
    target, _ = upscale(tmp_path / "a.tif")
    with tifffile.TiffFile(target) as file:
        assert file.pages[0].extrasamples == (0, 2)
        np.testing.assert_array_equal(file.pages[0].asarray()[::4, ::4], pixels)


def test_damaged_labels_of_imagej_are_named(tmp_path):
    extra = [
        (50838, "I", 3, (12, 999, 5), True),
        (50839, "B", 16, b"JIJI" + struct.pack("<II", 0x6C61626C, 3) + b"abcd", True),
    ]
    tifffile.imwrite(tmp_path / "a.tif", noise(1)[..., 0], description="ImageJ=1.5\n", extratags=extra, **PLAIN)
    _, notes = upscale(tmp_path / "a.tif")
    assert notes == ("not kept: labels of ImageJ",)


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("Aperio", "Aperio Image Library v11.2.1\r\n46000x32914 (240x240)|AppMag = 20"),
        ("Aperio", "Aperio Leica Biosystems GT450 v1.0.1\r\n152855x79623|AppMag = 40|MPP = 0.2627"),
        ("Philips", '<?xml version="1.0"?><DataObject ObjectType="DPUfsImport">DICOM_PIXEL_SPACING</DataObject>'),
    ],
)
def test_sizes_of_pixels_that_scanners_describe_are_named(tmp_path, program, text):
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="rgb", description=text, **PLAIN)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == (f"not kept: description of {program}",)
    assert 270 not in first_tags(target)


def test_a_caption_that_begins_like_a_scanner_is_kept(tmp_path):
    text = "Aperio rose, our garden"
    tifffile.imwrite(tmp_path / "a.tif", noise(3), photometric="rgb", description=text, **PLAIN)
    target, notes = upscale(tmp_path / "a.tif")
    assert notes == ()
    assert first_tags(target)[270] == text


def test_significant_bits_of_another_type_are_left_out_of_ome_xml(tmp_path):
    text = '<OME><Pixels Type="{}" SignificantBits="12" SizeX="14" SizeY="9" SizeC="1" SizeZ="1" SizeT="1"/></OME>'
    for dtype, is_kept in ((np.int16, False), (np.uint16, True)):
        pixels = noise(1, np.uint16)[..., 0].astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", pixels, description=text.format(dtype.__name__), **PLAIN)
        assert ("SignificantBits" in first_tags(upscale(tmp_path / "a.tif")[0])[270]) == is_kept


def test_no_data_of_integers_stays_an_integer(tmp_path):
    tags = [(42113, 2, 2, "0", True)]
    tifffile.imwrite(tmp_path / "a.tif", noise(1)[..., 0], photometric="miniswhite", extratags=tags, **PLAIN)
    assert first_tags(upscale(tmp_path / "a.tif")[0])[42113] == "255"
