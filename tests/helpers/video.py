"""Makes, damages, upscales and reads small videos for tests."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from esrgan import Upscaler, upscale_video
from esrgan.errors import VideoError
from esrgan.video import VideoJob, VideoOptions, VideoProgress, colour

RATE = Fraction(25)
MS = Fraction(1, 1000)
INTERLACED = {"flags": "+ilme+ildct", "x264-params": "tff=1"}
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


def make(upscaler: Upscaler, source: Path, target: Path, **options: Any) -> list[VideoProgress]:
    """Upscale a video, and return the progress after each frame."""
    return list(upscale_video(upscaler, source, target, VideoOptions(**options)))


def video_packets(path: Path) -> list[tuple[Any, ...]]:
    """Return times, durations and contents of the packets of the first video stream."""
    with av.open(str(path)) as video:
        return [(p.pts, p.dts, p.duration, bytes(p)) for p in video.demux(video.streams.video[0]) if p.size]


def colours(path: Path) -> np.ndarray:
    """Return the frames (N, H, W, C) of an RGB video."""
    return np.stack([colour.to_pixels(frame, colour.coding_of(frame)) for frame in read_frames(path)])


def interrupt(upscaler: Upscaler, source: Path, target: Path, after: int) -> None:
    """Upscale the first frames of a video."""
    work = upscale_video(upscaler, source, target)
    for _ in range(after):
        next(work)
    work.close()


def message(upscaler: Upscaler, source: Path, target: Path, **options: Any) -> str:
    """Return the message, of one line, with which a video is refused."""
    with pytest.raises(VideoError) as error:
        make(upscaler, source, target, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def run_pipe(source: Path, model: Path, *options: str, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    """Upscale a video by the command to standard output."""
    command = [sys.executable, "-m", "esrgan", "video", str(source), "-o", "-", "-m", str(model), "--device", "cpu"]
    return subprocess.run([*command, *options], capture_output=True, **settings)


def damage(video: Path, place: int = 1) -> None:
    """Overwrite bytes of one of several intra-coded pictures, which the decoder conceals."""
    content = bytearray(video.read_bytes())
    with av.open(str(video)) as container:
        packet = next(each for number, each in enumerate(container.demux(video=0)) if number == place)
        begin = content.index(bytes(packet)) + packet.size // 3
    content[begin : begin + 8] = b"\xff" * 8
    video.write_bytes(content)


def join(path: Path, *parts: Path) -> Path:
    """Write TS files after one another, without a gap."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def write_part(path: Path, number: int, size: tuple[int, int] = (16, 24), options: Any = (), **settings: Any) -> Path:
    """Write part ``number`` of a TS video: 10 frames of 40 ms."""
    times, clock = [3600 * (10 * number + i) for i in range(10)], Fraction(1, 90_000)
    options = {"bf": "0", **dict(options)}
    return write_video(path, pictures(10, size), times=times, time_base=clock, options=options, **settings)


def notes_of(upscaler: Upscaler, path: Path, target: Path, **options: Any) -> list[str]:
    """Upscale a video, and return the notes before the work."""
    job = VideoJob(upscaler, path, target, VideoOptions(**options))
    list(job.upscale())
    job.assemble()
    return job.notes()
