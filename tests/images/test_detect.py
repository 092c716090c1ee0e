"""Tests of naming files that are not supported images."""

import os
import socket

import pytest

from esrgan import images
from esrgan.errors import ImageError

FILES = {
    "y4m": (b"YUV4MPEG2 W4 H4 F25:1\nFRAME\n", "a video (Y4M); `esrgan video` upscales videos"),
    "mp4": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video (MP4 or QuickTime); `esrgan video` upscales videos"),
    "mov": (b"\0\0\0\x08wide\0\0\0\0mdat", "a video (QuickTime)"),
    "mkv": (b"\x1aE\xdf\xa3\x01", "a video (Matroska or WebM)"),
    "avi": (b"RIFF\0\0\0\0AVI LIST", "a video (AVI)"),
    "ts": ((b"G" + bytes(187)) * 4, "a video (MPEG transport stream)"),
    "fits": (b"SIMPLE  =                    T".ljust(80), "an astronomical image (FITS); export it as a .tif"),
    "xisf": (b"XISF0100\0\0", "an astronomical image (XISF)"),
    "dcm": (bytes(128) + b"DICM", "a medical image (DICOM)"),
    "exr": (b"v/1\x01\2\0\0\0", "an OpenEXR image; convert it to a .tif of float samples"),
    "hdr": (b"#?RADIANCE\n", "a Radiance HDR image"),
    "pfm": (b"PF\n4 4\n-1.0\n", "a PFM image"),
    "pam": (b"P7\nWIDTH 4\n", "a PAM image"),
    "ico": (b"\0\0\1\0\1\0\x10\x10\0\0", "an icon (ICO)"),
    "cur": (b"\0\0\2\0\1\0\x10\x10\0\0", "a cursor (CUR)"),
    "icns": (b"icns\0\0\1\0", "an icon (ICNS)"),
    "jxl": (b"\xff\x0a\1\2", "a JPEG XL image"),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    "psd": (b"8BPS\0\1" + bytes(20), "a Photoshop document (PSD); flatten and export"),
    "psb": (b"8BPS\0\2" + bytes(20), "a Photoshop document (PSB)"),
    "svg": (b"<?xml version='1.0'?>\n<svg/>", "a drawing (SVG); export it as a .png"),
    "svg2": (b"<!-- by an editor -->\n<svg/>", "a drawing (SVG)"),
    "xpm": (b"/* XPM */\nstatic", "an XPM or XBM image"),
    "pkl": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}", "a pickle of Python"),
    "pdf": (b"%PDF-1.7", "a PDF document"),
    "cr3": (b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera raw file (Canon CR3); develop it"),
    "raf": (b"FUJIFILMCCD-RAW 0201", "a camera raw file (Fujifilm RAF)"),
    "orf": (b"IIRO\x08\0\0\0", "a camera raw file (Olympus ORF)"),
    "rw2": (b"IIU\0\x18\0\0\0", "a camera raw file (Panasonic RW2)"),
    "zip": (b"PK\3\4" + bytes(26) + b"a.png", "a ZIP archive; unpack it"),
    "gz": (b"\x1f\x8b\x08", "a gzip archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    "rar": (b"Rar!\x1a\x07\1", "a RAR archive"),
    "tar": (b"a.png".ljust(257, b"\0") + b"ustar\0", "a tar archive"),
    "pth": (b"PK\3\4" + bytes(26) + b"archive/data.pkl", "a PyTorch model; a model is given with -m"),
    "safetensors": (b'\x10\0\0\0\0\0\0\0{"a":{}}      ', "a model (safetensors)"),
    "onnx": (b"\x08\x07\x12\x07pytorch", "a model (ONNX)"),
    "param": (b"7767517\n1 1\n", "a model (ncnn)"),
    "npy": (b"\x93NUMPY\1\0", "a NumPy array"),
    "npz": (b"PK\3\4" + bytes(26) + b"arr_0.npy", "NumPy arrays"),
    "h5": (b"\x89HDF\r\n\x1a\n", "data in HDF5"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, not the file itself; fetch"),
    "html": (b"\xef\xbb\xbf <!DOCTYPE html>", "a web page; download the image itself"),
    "txt": (b"To do: buy milk\n", "a text file"),
    "sqlite": (b"SQLite format 3\0", "an SQLite database"),
    "qoi": (b"qoif\0\0\0\4", "a QOI image"),
    "pcx": (b"\x0a\5\1\x08" + bytes(9), "a PCX image"),
    "wmf": (b"\xd7\xcd\xc6\x9a\0\0", "a drawing (WMF)"),
    "emf": (b"\1\0\0\0" + bytes(36) + b" EMF", "a drawing (EMF)"),
    "xcf": (b"gimp xcf v011\0", "a GIMP document (XCF)"),
    "kra": (b"PK\3\4" + bytes(26) + b"mimetypeapplication/x-krita", "a Krita document (KRA)"),
    "bm": (b"BMW is a car\n        ", "a text file"),
    "p1": (b"P1 is a part\n", "a text file"),
    "zeros": (bytes(600), "a file of zeros"),
    "macos": (b"\0\x05\x16\x07\0\2\0\0Mac OS X", "what macOS stores about another file"),
    "unknown": (b"\x91\x02\xfe\x00\x81\x07", "an unknown format"),
}


@pytest.mark.parametrize("kind", FILES)
def test_foreign_files_are_named_with_a_remedy(tmp_path, kind):
    content, expected = FILES[kind]
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        images.read_image(path)
    assert f", got {expected}" in str(error.value)
    assert "damaged" not in str(error.value).replace("a damaged disk", "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="got a named pipe; save the data to a file first"):
        images.read_image(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.png"))
        with pytest.raises(ImageError, match="got a socket"):
            images.read_pixels(tmp_path / "s.png", 3)
    with pytest.raises(ImageError, match="got a device"):
        images.read_image("/dev/zero")
    with pytest.raises(ImageError, match="got a folder"):
        images.read_shape(tmp_path)
