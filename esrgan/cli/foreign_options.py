"""Options of other programs of the ESRGAN family, with what to use here.

The programs are Real-ESRGAN, its ncnn versions, upscayl, the ESRGAN forks of the chaiNNer authors, and BasicSR.
"""

from __future__ import annotations

_NO_TILES = "not needed, because images of any size are upscaled in strips, without seams"
_NO_OPTION = "name {} without an option"
_DEVICE = "here it is --device cuda:N"
_GPUS = "not needed, because all GPUs are used; several machines need torchrun"


def _expand(table: dict[str, str]) -> dict[str, str]:
    """Return a table with a key for each of several options separated by spaces."""
    return {option: hint for options, hint in table.items() for option in options.split()}


_MODEL = _expand(
    {
        "-i --input": _NO_OPTION.format("the images"),
        "-n --model_name --model-name --model": "here it is -m, with a file or a name listed by `esrgan models`",
        "-t --tile --tile-size --tile_size --tile_pad --tile-pad --pre_pad": _NO_TILES,
        "-csd --cache-max-split-depth": _NO_TILES,
        "--fp32": "here it is --precision fp32",
        "--half --fp16": "here it is --precision fp16, which is the default on CUDA",
        "--face_enhance --face-enhance": "not available, because there is no model for faces only",
        "-g --gpu-id --gpu_id --device-id --device_id": _DEVICE,
        "--cpu": "here it is --device cpu",
        "-j": "not needed, because the next image is read and the previous one is written in the meantime",
        "-v --verbose": "not needed, because progress is always shown",
    }
)
_SIZE = _expand(
    {
        "-s --scale -z": "here it is --outscale; without it, the model's factor is used",
        "-r --resize": "here it is --width, --height, --long-side or --outscale",
        "-w": "here it is --width",
        "-dn --dn --denoise_strength --denoise-strength": "here it is --alpha, with -m realesr-general-x4v3",
        "-x --tta": "here it is --self-ensemble",
        "--alpha_upsampler": "not needed, because transparency is upscaled too",
    }
)
_IMAGES = _expand(
    {
        "--output": "here it is -o",
        "-f --ext": "here it is --format",
        "-c --compression": "here it is --quality, from 1 to 100",
        "--binary-alpha": "here it is --transparency hard",
        "--alpha-mode --alpha_mode": "not needed, because alpha is upscaled too; --transparency says what it means",
        "--ternary-alpha --alpha-threshold --alpha-boundary-offset": "not available; see --transparency hard",
        "--skip_existing": "here it is --skip-existing",
        "--num_process_per_gpu": "start `torchrun --nproc-per-node N -m esrgan inference` for N processes",
    }
)
_UPSCALING = _MODEL | _SIZE | _IMAGES
_BULK = _expand(
    {
        "-g --gpu-id --gpu_id --device-id --device_id": "not needed, because all GPUs of the cluster are used",
        "--cpu": "here it is --num-gpus-per-worker 0",
        "--skip_existing": "not needed, because images whose output exists are skipped",
        "--num_process_per_gpu": "here it is --num-gpus-per-worker, which can be a fraction",
    }
)
_BASICSR = _expand(
    {
        "-opt --opt": _NO_OPTION.format("the configuration, a JSON file,"),
        "--auto_resume": "here it is --resume auto",
        "--launcher --local_rank --local-rank": _GPUS,
        "--debug": "here it is --dry-run",
    }
)
_VIDEO = _expand(
    {
        "-i --input": _NO_OPTION.format("the video"),
        "--fps": "not needed, because every frame keeps its time",
        "--extract_frame_first --ffmpeg_bin": "not needed, because PyAV reads the video",
        "--num_process_per_gpu": "start `torchrun --nproc-per-node N -m esrgan video` for N processes",
    }
)
_TESTING = _expand(
    {
        "-opt --opt": "name the models without an option, and the datasets with -d",
        "--launcher --local_rank --local-rank": "not needed, because one device is used",
        "-i --input": "name the datasets with -d",
        "--output": "here it is -o",
    }
)
_EXPORTING = _expand(
    {
        "-i --input": _NO_OPTION.format("the model"),
        "-o --output": _NO_OPTION.format("the file to write"),
        "--params": "not needed, because the weights are found under any key",
        "--fp16": "here it is --half",
    }
)
FOREIGN_OPTIONS = {
    "inference": _UPSCALING,
    "bulk": _UPSCALING | _BULK,
    "video": _MODEL | _SIZE | _VIDEO,
    "compare": _MODEL,
    "train": _BASICSR,
    "test": _TESTING,
    "export": _EXPORTING,
}
