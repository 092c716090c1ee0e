"""Makes small videos for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame

RATE = Fraction(25)
SAMPLE_RATE = 48_000


def pictures(count: int, size: tuple[int, int] = (16, 24), channels: int = 3) -> np.ndarray:
    """Return frames (N, H, W, C) of a smooth pattern that moves."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin((x + i) / (3 + c) + y / (4 + c)) for i in range(count) for c in range(channels)]
    return (128 + 90 * np.stack(waves).reshape(count, channels, *size)).astype(np.uint8).transpose(0, 2, 3, 1)


def to_frame(picture: np.ndarray, pixel_format: str, **properties: Any) -> VideoFrame:
    """Return a frame of any format; its colours are whatever FFmpeg makes of the picture."""
    names = {1: "gray", 3: "rgb24", 4: "rgba"}
    frame = VideoFrame.from_ndarray(picture.squeeze(), format=names[picture.shape[2]])
    if frame.format.name != pixel_format:
        frame = frame.reformat(format=pixel_format, threads=1)
    for name, value in properties.items():
        setattr(frame, name, value)
    return frame


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    times: list[int] | None = None,
    time_base: Fraction = 1 / RATE,
    options: dict[str, str] | None = None,
    properties: dict[str, Any] | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    sound: bool = False,
    sound_codec: str = "aac",
    subtitles: bool = False,
    metadata: dict[str, str] | None = None,
    chapters: bool = False,
    container_format: str | None = None,
) -> Path:
    """Write a video; ``properties`` are those of frames and encoder, such as ``colorspace``."""
    properties = properties or {}
    with av.open(str(path), "w", format=container_format) as video:
        stream: Any = video.add_stream(codec, RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel_format
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        for name, value in properties.items():
            setattr(stream.codec_context, name, value)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if pixel_format.startswith("yuva") and "vpx" in codec:
            stream.metadata.update(alpha_mode="1")
        audio: Any = video.add_stream(sound_codec, SAMPLE_RATE) if sound else None
        if audio is not None:
            audio.metadata.update(language="fra")
        text: Any = None
        if subtitles:
            text = video.add_mux_stream("subrip" if path.suffix == ".mkv" else "mov_text")
            text.time_base = Fraction(1, 1000)
            text.metadata.update(language="deu")
        video.metadata.update(metadata or {})
        if chapters:
            names = [(0, 200, "first"), (200, 400, "second")]
            video.set_chapters(
                [
                    {"id": i, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": name}}
                    for i, (a, b, name) in enumerate(names)
                ]
            )
        packets = []
        for i, picture in enumerate(frames):
            frame = to_frame(picture, pixel_format, **properties)
            frame.pts, frame.time_base = (i if times is None else times[i]), time_base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if audio is not None:
            wave = np.sin(np.arange(SAMPLE_RATE) / 20).astype(np.float32)[None]
            for i in range(0, SAMPLE_RATE - 1024, 1024):
                part = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[:, i : i + 1024]), "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = SAMPLE_RATE, i, Fraction(1, SAMPLE_RATE)
                packets += audio.encode(part)
            packets += audio.encode(None)
        if text is not None:
            for i, line in enumerate((b"Guten", b"Tag")):
                packet = av.Packet(line if path.suffix == ".mkv" else len(line).to_bytes(2) + line)
                packet.pts = packet.dts = 10 + 90 * i
                packet.duration, packet.time_base, packet.stream = 80, text.time_base, text
                packets.append(packet)
        for packet in packets:
            video.mux(packet)
    return path


def read_video(path: Path, kind: str = "video") -> list[tuple[Fraction, bytes]]:
    """Return the packets of all streams of a kind, in order of their times, with their times in seconds."""
    with av.open(str(path)) as video:
        streams = [stream for stream in video.streams if stream.type == kind]
        packets = [packet for packet in video.demux(*streams) if packet.size] if streams else []
        found = [(each.pts * (each.time_base or each.stream.time_base), bytes(each)) for each in packets]
    return sorted(found)


def read_frames(path: Path) -> list[VideoFrame]:
    """Return the decoded frames."""
    with av.open(str(path)) as video:
        return list(video.decode(video=0))
