"""Tests that XMP packets follow the size and the direction of the image, and announce nothing that is gone."""

import pytest

from esrgan import images
from esrgan.images.xmp import adjust_xmp, join_xmp
from tests.helpers.image_files import noise

PACKET = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"
 xmlns:Container="http://ns.google.com/photos/1.0/container/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"
 xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"
 xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
 GPano:CroppedAreaLeftPixels="10" GPano:PoseHeadingDegrees="30" tiff:Orientation="6" %s>
<GPano:FullPanoHeightPixels>50</GPano:FullPanoHeightPixels><dc:title>kept</dc:title>%s</rdf:Description></rdf:RDF></x:xmpmeta>"""
MOTION = b'GCamera:MotionPhoto="1"', b"<Container:Directory><rdf:Seq/></Container:Directory>"
NOTE = "XMP entries on images or videos that are left out not kept"


def adjust(attributes=b"", elements=b"", orientation=1):
    """Return a packet and the note after an image has become four times as high and twice as wide: 100 × 200."""
    return adjust_xmp(PACKET % (attributes, elements), 100, 200, (4, 2), orientation)


@pytest.mark.parametrize("gone", [(b"", b""), MOTION])
def test_xmp_follows_the_size_and_announces_nothing_that_is_gone(gone):
    adjusted, note = adjust(*gone)
    expected = (PACKET % (b"", b"")).replace(b'LeftPixels="10"', b'LeftPixels="20"').replace(b">50<", b">200<")
    expected = expected.replace(b'Orientation="6"', b'Orientation="1"')
    assert adjusted.replace(b" ", b"") == expected.replace(b" ", b"")
    assert note == (NOTE if gone is MOTION else None)


def test_xmp_that_alone_states_an_orientation_keeps_it(tmp_path):
    """No reader of JPEG applies it, so the image is as it was."""
    images.write_image(tmp_path / "a.jpg", images.ImageData((noise(3),), "JPEG", xmp=PACKET % (b"", b"")))
    found = images.read_image(tmp_path / "a.jpg")
    assert b'Orientation="6"' in found.xmp
    images.write_image(tmp_path / "b.tif", found)
    assert b'Orientation="6"' in images.read_image(tmp_path / "b.tif").xmp


def test_the_calibration_of_a_drones_camera_follows_the_size():
    data = b"2022-06-08;3666.5,3670.25,-27,15.5,-0.1,0.02,0,0,-0.03"
    space = b'xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/"'
    adjusted, _ = adjust(space + b' drone-dji:DewarpData="' + data + b'"')
    assert b'DewarpData="2022-06-08;7333.0,14681.0,-54,62.0,-0.1,0.02,0,0,-0.03"' in adjusted


def test_values_inside_of_removed_entries_do_not_disturb():
    inside = b'<Container:Directory tiff:ImageWidth="5"><tiff:ImageLength>7</tiff:ImageLength></Container:Directory>'
    adjusted, _ = adjust(elements=inside + b"<tiff:ImageWidth>50</tiff:ImageWidth>")
    assert b"</dc:title><tiff:ImageWidth>200</tiff:ImageWidth></rdf:Description>" in adjusted


def test_entries_on_the_photograph_itself_are_kept():
    adjusted, note = adjust(b'GCamera:BurstID="x" GCamera:SpecialTypeID="portrait"')
    assert b'GCamera:BurstID="x" GCamera:SpecialTypeID="portrait"' in adjusted
    assert note is None


@pytest.mark.parametrize(
    "name",
    [
        b"http://ns.google.com/photos/1.0/camera/ MicroVideoOffset",
        b"http://ns.google.com/photos/1.0/depthmap/ Data",
        b"http://ns.google.com/photos/1.0/image/ Data",
        b"http://ns.oplus.com/photos/1.0/camera/ OLivePhotoVersion",
        b"http://ns.adobe.com/hdr-gain-map/1.0/ Version",
        b"http://ns.apple.com/HDRGainMap/1.0/ HDRGainMapVersion",
        b"http://ns.adobe.com/xap/1.0/ Thumbnails",
    ],
)
def test_other_images_and_videos_are_not_announced(name):
    uri, name = name.split()
    for inside in (
        (b'xmlns:q="%s" q:%s="1"' % (uri, name), b""),
        (b"", b'<q:%s xmlns:q="%s">1</q:%s>' % (name, uri, name)),
    ):
        adjusted, note = adjust(*inside)
        assert name + b"=" not in adjusted
        assert name + b" " not in adjusted
        assert note == NOTE


def test_regions_follow_the_image():
    regions = (
        b'<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="100" stDim:h="25" '
        b'stDim:unit="pixel"/><mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType="Resource"><mwg-rs:Area stArea:x="0.1" '
        b'stArea:y="0.25" stArea:w="0.2" stArea:h="0.3" stArea:unit="normalized"/></rdf:li></rdf:Bag>'
        b"</mwg-rs:RegionList></mwg-rs:Regions>"
    )
    adjusted, _ = adjust(elements=regions)
    assert b'stDim:w="200" stDim:h="100"' in adjusted
    assert b'stArea:x="0.1" stArea:y="0.25" stArea:w="0.2" stArea:h="0.3"' in adjusted
    adjusted, _ = adjust(elements=regions, orientation=6)
    assert b'stDim:w="50" stDim:h="400"' in adjusted
    assert b'stArea:x="0.75" stArea:y="0.1" stArea:w="0.3" stArea:h="0.2"' in adjusted


@pytest.mark.parametrize(
    ("orientation", "pixels", "relative", "rectangle"),
    [
        (1, (20, 40, 6, 16), (0.1, 0.2, 0.3, 0.4), "0.1, 0.2, 0.3, 0.4"),
        (3, (174, 44, 6, 16), (0.6, 0.4, 0.3, 0.4), "0.6, 0.4, 0.3, 0.4"),
        (6, (172, 40, 8, 12), (0.4, 0.1, 0.4, 0.3), "0.4, 0.1, 0.4, 0.3"),
    ],
)
def test_other_kinds_of_regions_follow_the_image(orientation, pixels, relative, rectangle):
    """The upright image had 25 rows of 100 pixels."""
    box = b'<e:RegionBoundary xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" %s/>'
    text = 'e:rbX="{}" e:rbY="{}" e:rbW="{}" e:rbH="{}"'
    inside = box % text.format(10, 10, 3, 4).encode() + box % text.format(0.1, 0.2, 0.3, 0.4).encode()
    inside += b'<m:li xmlns:m="http://ns.microsoft.com/photo/1.2/t/Region#" m:Rectangle="0.1, 0.2, 0.3, 0.4"/>'
    adjusted, _ = adjust(elements=inside, orientation=orientation)
    assert text.format(*pixels).encode() in adjusted
    assert text.format(*relative).encode() in adjusted
    assert f'm:Rectangle="{rectangle}"'.encode() in adjusted


def test_what_photogrammetry_is_told_follows_the_size():
    values = b'd:CalibratedFocalLength="3666.5" d:CalibratedOpticalCenterX="9" d:CalibratedOpticalCenterY="10.25"'
    adjusted, _ = adjust(values + b' xmlns:d="http://www.dji.com/drone-dji/1.0/"')
    assert b'FocalLength="7333.0" d:CalibratedOpticalCenterX="18" d:CalibratedOpticalCenterY="41.0"' in adjusted


def test_dimensions_of_other_things_are_kept():
    page = b'<xmpTPg:MaxPageSize xmlns:xmpTPg="http://ns.adobe.com/xap/1.0/t/pg/" stDim:w="8" stDim:h="11"/>'
    assert page in adjust(elements=page)[0]


def test_copies_of_exif_follow_the_image():
    area = b"<exif:SubjectArea><rdf:Seq><rdf:li>10</rdf:li><rdf:li>20</rdf:li></rdf:Seq></exif:SubjectArea>"
    values = b'tiff:XResolution="300/1" tiff:YResolution="150/1" exif:FocalPlaneXResolution="10/3" '
    values += b'exif:FocalPlaneYResolution="20/3"'
    adjusted, _ = adjust(values, area)
    assert b"<rdf:li>20</rdf:li><rdf:li>80</rdf:li>" in adjusted
    assert b'FocalPlaneXResolution="20/3" exif:FocalPlaneYResolution="80/3"' in adjusted
    assert b'XResolution="300/1" tiff:YResolution="150/1"' in adjusted
    adjusted, _ = adjust(values, area, orientation=6)  # the upright image had 25 rows of 100 pixels
    assert b"<rdf:li>158</rdf:li><rdf:li>40</rdf:li>" in adjusted
    assert b'FocalPlaneXResolution="40/3" exif:FocalPlaneYResolution="40/3"' in adjusted
    assert b'XResolution="150/1" tiff:YResolution="300/1"' in adjusted


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be", "utf-8-sig"])
def test_other_encodings_become_utf8(encoding):
    packet = (PACKET % MOTION).replace(b"kept", "für".encode())
    declared = f'<?xml version="1.0" encoding="{encoding[:6]}"?>'.encode() if "16" in encoding else b""
    adjusted, note = adjust_xmp((declared + packet).decode().encode(encoding), 100, 200, (4, 2))
    assert "für</dc:title>".encode() in adjusted
    assert b"MotionPhoto" not in adjusted
    assert note == NOTE
    assert adjust_xmp(adjusted, 100, 200, (1, 1)) == (adjusted, None)


@pytest.mark.parametrize(
    "end", [b"\0", b"\0\0\n", b"   \n" * 99 + b'<?xpacket end="w"?>', b"\n<?xpacket end='w'?>\0pad"]
)
def test_padding_is_kept(end):
    adjusted, note = adjust_xmp(PACKET % MOTION + end, 100, 200, (4, 2))
    assert adjusted.endswith(b"</x:xmpmeta>" + end)
    assert note == NOTE


@pytest.mark.parametrize(
    "packet",
    [
        (PACKET % MOTION)[:-9],
        b'<?xml version="1.0" encoding="foo"?>' + PACKET % MOTION,
        b'<?xml version="1.0" encoding="shift-jis"?>' + PACKET % MOTION,
        (PACKET % MOTION).replace(b"kept", b"\xff"),
        b"\xff\xfe" + PACKET % MOTION,
        b"Orientation http://ns.adobe.com/tiff/1.0/",
    ],
)
def test_unreadable_xmp_that_may_be_stale_is_left_out(tmp_path, packet):
    assert adjust_xmp(packet, 1, 1, (1, 1)) == (None, "unreadable XMP not kept")
    assert images.write_image(tmp_path / "a.png", images.ImageData((noise(3),), xmp=packet)) == (
        "unreadable XMP not kept",
    )


def test_xmp_that_defines_entities_is_left_out():
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]>' + PACKET % MOTION
    assert adjust_xmp(bomb, 1, 1, (1, 1)) == (None, "XMP with definitions of entities not kept")


def test_deep_xmp_is_adjusted():
    deep = b"<a>" * 8000 + b"</a>" * 8000
    adjusted, note = adjust(MOTION[0], deep)
    assert deep in adjusted
    assert note == NOTE


def test_unreadable_xmp_without_anything_stale_is_kept():
    assert adjust_xmp(b"<broken", 1, 1, (1, 1)) == (b"<broken", None)


def test_packets_are_joined():
    extension = b'<y:xmpmeta xmlns:y="adobe:ns:meta/" xmlns:q="http://q/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-'
    extension += b'rdf-syntax-ns#"><r:Description r:about="" q:a="b"/></r:RDF></y:xmpmeta>'
    joined = join_xmp(PACKET % (b"", b""), extension)
    assert b'<r:Description r:about="" q:a="b"/></rdf:RDF>' in joined
    assert adjust_xmp(joined + b"http://ns.adobe.com/tiff/1.0/", 1, 1, (1, 1))[0] is not None
    assert join_xmp(b"x", extension) is None
