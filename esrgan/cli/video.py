"""``esrgan video``: upscale videos."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from esrgan.cli import arguments, cluster, process, upscaling_options
from esrgan.cli.inference import wait_for_all_processes
from esrgan.console import StandardOutput, log, progress
from esrgan.errors import EsrganError
from esrgan.extras import require_extra
from esrgan.pretrained import DEFAULT_VIDEO_MODEL
from esrgan.progress import TimeLeft, explain_interrupt
from esrgan.text import format_count, format_duration

if TYPE_CHECKING:
    from esrgan.video import VideoJob, VideoProgress
    from esrgan.weights import GeneratorFile

EXAMPLES = """\
  esrgan video film.mp4
  esrgan video film.mkv -o large.mkv --codec h265 --crf 16
  esrgan video -m esrgan-photo holiday.mov --start 1:20 --end 1:25 -o try.mov
  esrgan video film.mp4 --height 2160
  torchrun --nproc-per-node 4 -m esrgan video film.mp4
  esrgan video /shared/film.mp4 --address auto --workers 8
  ffmpeg -i film.avi -f yuv4mpegpipe - | esrgan video - -o - | ffplay -"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser of ``esrgan video``."""
    parser = arguments.make_parser(
        "video",
        "Upscale a video. Audio, subtitles, chapters, attachments and metadata are copied, and timestamps stay exact.\n"
        "After an interruption, the same command resumes.",
        EXAMPLES,
    )
    parser.add_argument("video", help="the video, or - for YUV4MPEG2 (.y4m) from standard input")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the output (.mp4, .mkv, .mov, .webm or .m4v), a folder for it, or - for YUV4MPEG2 on standard "
        "output (default: <name>_sr next to the video)",
    )
    parser.add_argument("--overwrite", action="store_true", help="overwrite an existing output")
    upscaling_options.add_model_options(parser, DEFAULT_VIDEO_MODEL)
    upscaling_options.add_size_options(parser)
    upscaling_options.add_correction_options(parser)
    parser.add_argument(
        "--codec",
        help="h264, h265, vp8, vp9, av1, prores, ffv1 (lossless) or png (lossless) (default: that of the video if it "
        "is one of these, otherwise h264)",
    )
    crf = arguments.number("a number from 0 to 63", lambda value: 0 <= value <= 63)
    parser.add_argument("--crf", type=crf, metavar="N", help="constant rate factor; lower is better quality")
    parser.add_argument("--pixel-format", metavar="NAME", help="such as yuv420p10le (default: like the video)")
    parser.add_argument("--start", type=_time, metavar="TIME", help="start time: seconds, M:SS or H:MM:SS")
    parser.add_argument("--end", type=_time, metavar="TIME", help="end time")
    parser.add_argument("--deinterlace", action="store_true", help="make full frames of interlaced ones (bwdif)")
    parser.add_argument(
        "--steady",
        type=arguments.number("a number from 0 to 255", lambda value: 0 <= value <= 255),
        nargs="?",
        const=2.0,
        metavar="N",
        help="reduce flicker: keep the output where frames differ by at most N of 255 levels (2 if N is left out)",
    )
    arguments.add_device(parser)
    group = parser.add_argument_group(
        "Ray cluster", "used if one of these is given; all machines need the same folders"
    )
    cluster.add_options(group)
    return parser


def _time(text: str) -> Fraction:
    """Parse a time, for ``type`` of an argument."""
    parts = text.split(":")
    if len(parts) > 3 or not all(part.replace(".", "", 1).isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected a time such as 83.5 or 1:23.5, got {text}")
    return sum((Fraction(part) * 60**place for place, part in enumerate(reversed(parts))), Fraction(0))


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    require_extra("video")
    pipe = _take_standard_output() if args.output == "-" else None
    with process.importing():
        from esrgan.devices import select_local_device
        from esrgan.inference import Upscaler
        from esrgan.rendezvous import count_processes
        from esrgan.video import Video, VideoJob, VideoOptions, check_is_video, pipe_video, plan_target

    is_default = not args.model_path
    args.model_path = args.model_path or [DEFAULT_VIDEO_MODEL]
    names = upscaling_options.name_models(args)
    source = Path(args.video)
    if args.video == "-" and pipe is None:
        raise EsrganError("-: input from a pipe cannot be resumed; add -o - to write to a pipe")
    if pipe is not None and (args.codec, args.crf) != (None, None):
        raise EsrganError("-o -: a pipe gets frames that are not encoded; leave out --codec and --crf")
    if None not in (args.start, args.end) and args.start >= args.end:
        raise EsrganError("--end: expected a time after --start; check both")
    options = VideoOptions(**{option.name: getattr(args, option.name) for option in fields(VideoOptions)})
    if args.video != "-":
        check_is_video(source)
    if pipe is None:
        target = plan_target(source, None if args.output is None else arguments.path(args.output))
    models = upscaling_options.load_models(args)
    device = str(select_local_device(args.device))
    upscaler = Upscaler.from_file(models, device, args.precision, **upscaling_options.upscale_settings(args))
    described = upscaling_options.describe_models(models)
    log.info("%s: %s; on %s in %s", names, described, upscaler.device, upscaler.arithmetic)
    if is_default:
        log.info("this model is fast and made for drawings; -m esrgan-photo suits filmed material")
    shown = _Shown()
    if pipe is not None:
        with closing(pipe), explain_interrupt(lambda: f"{format_count(shown.frames, 'frame')} written"):
            video = Video(source, deinterlace=args.deinterlace, start=args.start)
            with closing(video):
                for state in pipe_video(upscaler, video, pipe, options):
                    shown.show(state)
        return _end(args.video, video.errors.notes())
    with VideoJob(upscaler, source, target, options) as job:
        log.info("%s: %s", target, job.describe())
        for note in job.notes():
            log.info("%s: %s", target, note)
        with explain_interrupt(lambda: f"{shown} done; run the same command to resume"):
            if (args.address, args.workers, args.num_gpus_per_worker) != (None, None, None):
                _upscale_on_cluster(args, job, models, shown)
            else:
                rank, processes = count_processes()
                with wait_for_all_processes(processes, "the same command"):
                    shown = _Shown()  # whose clock starts when all processes have connected
                    for state in job.upscale(rank, processes):
                        shown.show(state)
                if rank > 0:
                    return process.OK
                if processes > 1:  # this one has not counted the last segments of the others
                    shown.frames = sum(len(segment.times) for segment in job.folder.find_segments().values())
            progress(f"{target}: writing")
            notes = job.assemble()
    log.info("%s written: %s", target, shown)
    return _end(args.video, notes)


def _end(video: str, notes: Iterable[str]) -> int:
    """Show what could not be read of a video, and return the exit code."""
    code = process.OK
    for note in notes:
        log.warning("%s: %s", video, note)
        code = process.SOME_FAILED
    return code


def _upscale_on_cluster(
    args: argparse.Namespace, job: VideoJob, models: Sequence[GeneratorFile], shown: _Shown
) -> None:
    """Upscale all segments on a Ray cluster."""
    require_extra("ray")
    from esrgan.video import VideoProgress
    from esrgan.video.cluster import upscale_on_cluster

    with cluster.connect(args.address):
        gpus, workers = cluster.allocate_workers(args.num_gpus_per_worker, args.workers)
        log.info("%s", cluster.describe_workers(gpus, workers))
        first = None
        upscaling = upscaling_options.upscale_settings(args)
        for frames in upscale_on_cluster(job, models, args.precision, upscaling, workers, gpus):
            first = frames if first is None else first
            shown.show(VideoProgress(frames, frames - first, 0, job.num_frames))


class _Shown:
    """Shows how many frames are done, how fast, and the time left."""

    def __init__(self) -> None:
        self.begin, self.left = time.perf_counter(), TimeLeft()
        self.frames = self.repeated = 0

    def show(self, state: VideoProgress) -> None:
        """Show the progress."""
        self.frames, self.repeated = state.frames, state.repeated
        done = state.computed + state.repeated
        rate = done / (time.perf_counter() - self.begin)
        speed = f"{rate:.2f} frames/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s/frame"
        if not state.total:
            progress(f"{state.frames:,} frames, {speed}")
            return
        all_now = max(state.total - (state.frames - done), 1)  # without those of an earlier attempt
        left_s = self.left.update(min(done / all_now, 1.0))
        left = "" if left_s is None else f", {format_duration(left_s)} left"
        progress(f"{state.frames:,}/{max(state.total, state.frames):,} frames, {speed}{left}")

    def __str__(self) -> str:
        repeated = f", {self.repeated:,} of them equal to the one before" if self.repeated else ""
        return f"{format_count(self.frames, 'frame')}{repeated}"


def _take_standard_output() -> BinaryIO:
    """Return standard output for the video, and let messages go to standard error."""
    sys.stdout.flush()
    pipe = StandardOutput(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return cast("BinaryIO", pipe)
