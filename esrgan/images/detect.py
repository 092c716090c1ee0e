"""Detect the format of a file from its first bytes."""

from __future__ import annotations

import re

from esrgan.images.formats import FILE_FORMATS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD_BYTES = 1024
DIB_START = b"\x28\0\0\0"  # the size of BITMAPINFOHEADER, with which a bitmap without a file header starts
TGA_FOOTER = b"TRUEVISION-XFILE.\0"
_SEQUENCES = (b"avis", b"hevc", b"hevx", b"msf1")  # ISO/IEC 23008-12: major brands of image sequences
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", *_SEQUENCES)


def detect_format(head: bytes, tail: bytes = b"", suffix: str = "") -> str | None:
    """Return the format of a file, or None if it is unknown.

    Args:
        head: The first 32 bytes or more.
        tail: The last 18 bytes, which identify some TGA files.
        suffix: Suffix of the file in lower case, which identifies other TGA files and bitmaps without a header.
    """
    if head.startswith(PNG_SIGNATURE):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head.startswith(b"BM") and head[15:18] == bytes(3):  # the size of the second header
        return "BMP"
    if suffix == ".dib" and head.startswith(DIB_START):
        return "BMP"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4]), len(head)) - 3
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, end, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & set(_HEIF_BRANDS):
            return "HEIC"
    if head.startswith(b"DDS "):
        return "DDS"
    if re.match(rb"P[1-6](\s|#[^\r\n]*[\r\n])+\d", head):
        return "PPM"
    is_tga = suffix in FILE_FORMATS["TGA"].suffixes or tail == TGA_FOOTER
    if is_tga and head[1] < 2 and head[2] in (1, 2, 3, 9, 10, 11) and any(head[12:14]) and any(head[14:16]):
        return "TGA"
    return None


def is_image_sequence(head: bytes) -> bool:
    """Return whether an AVIF or HEIC file with these first bytes is an animation."""
    return head[8:12] in _SEQUENCES


_VIDEO = "`esrgan video` upscales videos"
_RAW = "develop it to a .tif or .png in a raw converter"
_SCIENCE = "export it as a .tif of 16 bits or float"
_IMAGE = "convert it to .png or .tif"
_DRAWING = "export it as a .png of the size you need"
_ARCHIVE = "unpack it"
_MODEL = "a model is given with -m"
_OTHER = "replace it or convert it to one of these formats"

# What files are: pattern of the first bytes, name, and remedy. The first that fits counts.
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (rb"YUV4MPEG2", "a video (Y4M)", _VIDEO),
    (rb"\x1aE\xdf\xa3", "a video (Matroska or WebM)", _VIDEO),
    (rb"RIFF....AVI ", "a video (AVI)", _VIDEO),
    (rb"FLV\x01", "a video (Flash Video)", _VIDEO),
    (rb"0&\xb2u\x8ef\xcf\x11", "a video (Windows Media)", _VIDEO),
    (rb"OggS", "a video or audio file (Ogg)", _VIDEO),
    (rb"\0\0\x01[\xba\xb3]", "a video (MPEG)", _VIDEO),
    (rb"G.{187}G.{187}G", "a video (MPEG transport stream)", _VIDEO),
    (rb".{4}G.{191}G.{191}G", "a video (MPEG transport stream)", _VIDEO),
    (rb"\x06\x0e\x2b\x34", "a video (MXF)", _VIDEO),
    (rb"....ftypcrx ", "a camera raw file (Canon CR3)", _RAW),
    (rb"....ftyp(M4A|M4B)", "an audio file (MPEG-4)", _OTHER),
    (rb"....ftyp", "a video (MP4 or QuickTime)", _VIDEO),
    (rb"....(moov|mdat|wide|free|skip|pnot)", "a video (QuickTime)", _VIDEO),
    (rb"II.{4}HEAPCCDR", "a camera raw file (Canon CRW)", _RAW),
    (rb"FUJIFILMCCD-RAW", "a camera raw file (Fujifilm RAF)", _RAW),
    (rb"IIR[OS]|MMOR", "a camera raw file (Olympus ORF)", _RAW),
    (rb"IIU\0", "a camera raw file (Panasonic RW2)", _RAW),
    (rb"FOVb", "a camera raw file (Sigma X3F)", _RAW),
    (rb"\0MRM", "a camera raw file (Minolta MRW)", _RAW),
    (rb"SIMPLE  *=", "an astronomical image (FITS)", _SCIENCE),
    (rb"XISF0100", "an astronomical image (XISF)", _SCIENCE),
    (rb".{128}DICM", "a medical image (DICOM)", _SCIENCE),
    (rb".{344}(n\+1|ni1)\0", "a medical image (NIfTI)", _SCIENCE),
    (rb"NRRD0", "a volume (NRRD)", _SCIENCE),
    (rb"v/1\x01", "an OpenEXR image", "convert it to a .tif of float samples"),
    (rb"#\?(RADIANCE|RGBE)", "a Radiance HDR image", "convert it to a .tif of float samples"),
    (rb"P[Ff]\s", "a PFM image", "convert it to a .tif of float samples"),
    (rb"P7\n", "a PAM image", _IMAGE),
    (rb"SDPX|XPDS", "a DPX image", "convert it to a .tif of 16 bits"),
    (rb"\xabKTX ", "a KTX texture", _IMAGE),
    (rb"VTF\0", "a VTF texture", _IMAGE),
    (rb"BLP[12]", "a BLP texture", _IMAGE),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image", _IMAGE),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image", _IMAGE),
    (rb"II\xbc", "a JPEG XR image", _IMAGE),
    (rb"\x8a(MNG)", "an animation (MNG)", _IMAGE),
    (rb"\x8bJNG", "a JNG image", _IMAGE),
    (rb"qoif", "a QOI image", _IMAGE),
    (rb"BPG\xfb", "a BPG image", _IMAGE),
    (rb"FLIF", "a FLIF image", _IMAGE),
    (rb"/\* XPM \*/|#define \w+_width ", "an XPM or XBM image", _IMAGE),
    (rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]", "a PCX image", _IMAGE),
    (rb"\x01\xda[\0\x01][\x01\x02]", "an SGI image", _IMAGE),
    (rb"\x59\xa6\x6a\x95", "a Sun raster image", _IMAGE),
    (rb"\0\0\x01\0[\x01-\xff]\0", "an icon (ICO)", "extract one size of it as .png"),
    (rb"\0\0\x02\0[\x01-\xff]\0", "a cursor (CUR)", "extract it as .png"),
    (rb"icns", "an icon (ICNS)", "extract one size of it as .png"),
    (rb"8BPS\0\x01", "a Photoshop document (PSD)", "flatten and export it as .png or .tif"),
    (rb"8BPS\0\x02", "a Photoshop document (PSB)", "flatten and export it as .png or .tif"),
    (rb"gimp xcf", "a GIMP document (XCF)", "export it as .png or .tif"),
    (rb"PK\x03\x04.{26}mimetypeapplication/x-krita", "a Krita document (KRA)", "export it as .png or .tif"),
    (rb"PK\x03\x04.{26}mimetypeimage/openraster", "an OpenRaster document (ORA)", "export it as .png or .tif"),
    (rb"%PDF", "a PDF document", _DRAWING),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript document", _DRAWING),
    (rb"AT&TFORM", "a DjVu document", _DRAWING),
    (rb"\xd7\xcd\xc6\x9a", "a drawing (WMF)", _DRAWING),
    (rb"\x01\0\0\0.{36} EMF", "a drawing (EMF)", _DRAWING),
    (rb"\x80\x02\x8a\x0a|PK\x03\x04.{26}[^/]{1,99}/(data\.pkl|\.format_version)", "a PyTorch model", _MODEL),
    (rb"\x80[\x02-\x05].{0,9}[\x00-\x1f\]\[}c]", "a pickle of Python, perhaps a model", _MODEL),
    (rb".{5}\0\0\0\{\s*\"", "a model (safetensors)", _MODEL),
    (rb"7767517\s", "a model (ncnn)", _MODEL),
    (rb"GGUF", "a model (GGUF)", _MODEL),
    (rb"\x93NUMPY", "a NumPy array (.npy)", "save it as a .png or .tif"),
    (rb"PK\x03\x04.{26}[^/]{1,99}\.npy", "NumPy arrays (.npz)", "save them as .png or .tif"),
    (rb"\x89HDF\r\n", "data in HDF5", _SCIENCE),
    (rb"CDF[\x01\x02\x05]", "data in NetCDF", _SCIENCE),
    (rb"MATLAB [57]", "data of MATLAB", _SCIENCE),
    (rb"SQLite format 3", "an SQLite database", _OTHER),
    (rb"PK\x03\x04.{26}\[Content_Types\]", "an Office document", "export its images"),
    (rb"PK(\x03\x04|\x05\x06)", "a ZIP archive", _ARCHIVE),
    (rb"\x1f\x8b", "a gzip archive", _ARCHIVE),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _ARCHIVE),
    (rb"Rar!\x1a\x07", "a RAR archive", _ARCHIVE),
    (rb"BZh[1-9]1AY", "a bzip2 archive", _ARCHIVE),
    (rb"\xfd7zXZ", "an xz archive", _ARCHIVE),
    (rb"\x28\xb5\x2f\xfd", "a Zstandard archive", _ARCHIVE),
    (rb".{257}ustar", "a tar archive", _ARCHIVE),
    (rb"MZ.{62}|\x7fELF|\xcf\xfa\xed\xfe", "a program", _OTHER),
    (rb"\0\x05\x16\x07", "what macOS stores about another file (a name with ._)", "upscale that other file"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch the file with git lfs pull"),
    (rb"ID3|fLaC|RIFF....WAVE", "an audio file", _OTHER),
)
_TEXT_KINDS = (
    (rb"<svg|<(\?xml|!--).*<svg|<!doctype svg", "a drawing (SVG)", _DRAWING),
    (rb"<!doctype html|<html|<head|<\?xml.*<html", "a web page", "download the image itself"),
    (rb"<\?xml", "an XML file", _OTHER),
)
_SUFFIX_KINDS = {".onnx": ("a model (ONNX)", _MODEL), ".bin": ("data without a format, perhaps a model", _MODEL)}


def guess_file_kind(head: bytes, suffix: str = "") -> tuple[str, str]:
    """Return what a file that is not a supported image seems to be, and what can be done about it.

    Args:
        head: The first ``HEAD_BYTES`` of the file, or all if there are fewer.
        suffix: Suffix of the file in lower case.
    """
    if not head:
        return "an empty file", _OTHER
    for pattern, name, remedy in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            return name, remedy
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    for pattern, name, remedy in _TEXT_KINDS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return name, remedy
    if suffix in _SUFFIX_KINDS:
        return _SUFFIX_KINDS[suffix]
    if not head.strip(b"\0"):
        return "a file of zeros (an unfinished download or a damaged disk)", "download or restore it again"
    is_text = re.fullmatch(rb"[\t\n\f\r\x20-\x7e\x80-\xff]+", head) and re.search(rb"[a-zA-Z ]{3}", head)
    return ("a text file" if is_text else "an unknown format"), _OTHER
