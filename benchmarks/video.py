"""Compare esrgan video with a loop without overlap: python benchmarks/video.py film.mp4 [-m MODEL] [--frames N].

The loop decodes, upscales and encodes one frame after the other by PyAV, with the same model, encoder and options. Both
take turns.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

import esrgan
from esrgan.video import VideoJob, VideoOptions, colour
from esrgan.video.source import Video


def loop(upscaler: esrgan.Upscaler, source: Path, target: Path, options: VideoOptions) -> None:
    """Upscale a video, one step after the other."""
    encoding = VideoJob(upscaler, source, target, options).encoding
    video, end = Video(source), None if options.end is None else round(options.end / encoding.time_base)
    with av.open(str(target), "w") as output:
        stream: Any = output.add_stream(encoding.codec, encoding.rate)
        encoding.configure(stream.codec_context)
        for shot in video.shots(None, end):
            high = upscaler(colour.to_pixels(shot.frame, video.properties.coding))
            frame = colour.to_frame(high, encoding.pixel_format, encoding.coding)
            frame.pts, frame.time_base = shot.time, encoding.time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def product(upscaler: esrgan.Upscaler, source: Path, target: Path, options: VideoOptions) -> None:
    """Upscale a video as the command does."""
    for _ in esrgan.upscale_video(upscaler, source, target, options):
        pass


def main() -> None:
    """Print a table with a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("-m", "--model", default="realesr-animevideov3", help="default: %(default)s")
    parser.add_argument("--seconds", type=Fraction, default=Fraction(2), help="of the video (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    upscaler = esrgan.Upscaler.from_file(args.model, args.device)
    ways: dict[str, Callable[..., None]] = {"one after the other": loop, "esrgan video": product}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                begin = time.perf_counter()
                way(upscaler, args.video, Path(folder) / "out.mkv", VideoOptions(end=args.seconds))
                times[name].append(time.perf_counter() - begin)
    first = min(times["one after the other"])
    print("| way | best s | median s | × |\n|---|--:|--:|--:|")
    for name, seconds in times.items():
        print(f"| {name} | {min(seconds):.2f} | {statistics.median(seconds):.2f} | {first / min(seconds):.2f} |")


if __name__ == "__main__":
    main()
