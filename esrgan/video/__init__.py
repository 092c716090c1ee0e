"""Upscale videos, with everything that belongs to them."""

from esrgan.extras import require_extra

require_extra("video")

from esrgan.video.opening import check_is_video as check_is_video  # noqa: E402
from esrgan.video.options import VideoOptions as VideoOptions  # noqa: E402
from esrgan.video.options import VideoProgress as VideoProgress  # noqa: E402
from esrgan.video.piping import pipe_video as pipe_video  # noqa: E402
from esrgan.video.source import Video as Video  # noqa: E402  needs PyAV
from esrgan.video.upscale import VideoJob as VideoJob  # noqa: E402
from esrgan.video.upscale import plan_target as plan_target  # noqa: E402
from esrgan.video.upscale import upscale_video as upscale_video  # noqa: E402
