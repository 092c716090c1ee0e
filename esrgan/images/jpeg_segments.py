"""Find the segments of a JPEG file (ITU-T T.81, annex B), and what follows its image."""

from __future__ import annotations

import re
import struct

EXTRA_IMAGES = "extra images after the photograph (a phone's preview, depth map or gain map)"
_VIDEO = "the video of a motion photo"
_END = 0xD9
# In compressed data, 0 follows a byte of 255. Markers of restarts and of a start have no length.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
_BOX = re.compile(rb"(....)[ -~]{4}", re.DOTALL)


def find_segments(data: bytes, position: int) -> tuple[list[tuple[int, bytes]], int | None]:
    """Return marker and content of the segments from a position on, and where the image ends; None if it does not."""
    segments: list[tuple[int, bytes]] = []
    while match := _MARKER.search(data, position):
        marker, position = data[match.start() + 1], match.end()
        if marker == _END:
            return segments, position
        end = position + int.from_bytes(data[position : position + 2])
        segments.append((marker, data[position + 2 : end]))
        position = end
    return segments, None


def describe_rest(rest: bytes) -> list[str]:
    """Return what the bytes after the image are; bytes of 0 only pad."""
    rest, found = _split_samsung_trailer(rest)
    position = unknown = 0
    image = video = -1
    while position < len(rest):
        image = image if image >= position else _find(rest, b"\xff\xd8\xff", position)
        video = video if video >= position else _find(rest, b"ftyp", position + 4) - 4
        start = min(image, video, len(rest))
        unknown += len(rest[position:start].strip(b"\0"))
        if start == image:
            found.append(EXTRA_IMAGES)
            _, end = find_segments(rest, start + 2)
            position = end or video  # without an end, anything up to the next video may be a part of it
        elif start == video:
            found.append(_VIDEO)
            position = max(_find_end_of_boxes(rest, start), start + 8)
        else:
            break
    return [*found, *([f"{unknown} bytes after the image"] if unknown else [])]


def _find(data: bytes, text: bytes, position: int) -> int:
    """Return where a text is next, or a position after the end of the data."""
    place = data.find(text, position)
    return place if place >= 0 else len(data) + 9


def _find_end_of_boxes(data: bytes, position: int) -> int:
    """Return where a video ends, which consists of boxes (ISO/IEC 14496-12, §4.2)."""
    while match := _BOX.match(data, position):
        size = int.from_bytes(match[1])
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16])
        if size == 0:
            return len(data)
        if size < 8:
            break
        position += size
    return min(position, len(data))


def _split_samsung_trailer(rest: bytes) -> tuple[bytes, list[str]]:
    """Return what is before the trailer of Samsung's cameras, and what the trailer holds.

    It consists of blocks, a directory that begins with SEFH, the size of the directory, and SEFT.
    """
    data = rest.rstrip(b"\0")
    if not data.endswith(b"SEFT") or len(data) < 20:
        return rest, []
    directory = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    if directory < 0 or data[directory : directory + 4] != b"SEFH":
        return rest, []
    start, names = directory, []
    for place in range(directory + 12, len(data) - 8 - 11, 12):
        block = directory - struct.unpack_from("<I", data, place + 4)[0]
        if 0 <= block <= directory - 8:
            start = min(start, block)
            length = struct.unpack_from("<I", data, block + 4)[0]
            names.append(data[block + 8 : block + 8 + min(length, 40)].decode("ascii", "replace"))
    video = [_VIDEO] if any(name.startswith("MotionPhoto") for name in names) else []
    return data[:start], [*video, f"Samsung's trailer ({', '.join(names)})"]
