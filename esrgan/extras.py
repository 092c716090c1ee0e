"""What can be installed besides: the extras, what each is for, and what of it is not there."""

from __future__ import annotations

import importlib.util

from esrgan.errors import EsrganError

EXTRAS = {
    "train": (("albumentations", "cv2", "skimage", "tensorboard", "torchvision", "wandb"), "training and its logs"),
    "metrics": (("matplotlib", "torchmetrics", "torchvision"), "LPIPS, DISTS, VGG16 and the curves of sweeps"),
    "demo": (("gradio",), "the web page of the demo"),
    "export": (("onnx", "onnxruntime", "onnxscript"), "ONNX"),
    "heic": (("pillow_heif",), "HEIC images"),
    "ray": (("pyarrow", "ray"), "upscaling on many machines"),
}


def missing_modules(extra: str) -> list[str]:
    """List the modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra][0] if importlib.util.find_spec(module) is None]


def require_extra(extra: str) -> None:
    """Make sure that an extra is installed.

    Raises:
        EsrganError: It is not; the message tells how to get it.
    """
    if absent := missing_modules(extra):
        raise EsrganError(f"{EXTRAS[extra][1]}: needs {', '.join(absent)}; pip install 'esrgan[{extra}]'")
