"""The optional dependencies (extras), what each is for, and which of their modules are missing."""

from __future__ import annotations

import importlib.util
from importlib.metadata import packages_distributions

from esrgan.errors import EsrganError
from esrgan.text import describe_error

EXTRAS = {
    "train": (("albumentations", "cv2", "skimage", "tensorboard", "torchvision", "wandb"), "training and logging"),
    "metrics": (("matplotlib", "torchmetrics", "torchvision"), "LPIPS, DISTS, VGG16 and plots of sweeps"),
    "demo": (("gradio",), "the demo web page"),
    "export": (("onnx", "onnxruntime", "onnxscript"), "ONNX export"),
    "heic": (("pillow_heif",), "HEIC images"),
    "hub": (("huggingface_hub",), "models on the Hugging Face Hub"),
    "video": (("av",), "videos"),
    "ray": (("pyarrow", "ray"), "upscaling on a cluster"),
}


def missing_modules(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra][0] if importlib.util.find_spec(module) is None]


def require_extra(extra: str) -> None:
    """Check that an extra is installed.

    Raises:
        EsrganError: If modules are missing; the message contains the command that installs them.
    """
    if absent := missing_modules(extra):
        purpose = EXTRAS[extra][1]
        raise EsrganError(
            f"{', '.join(absent)}: not installed, but needed for {purpose}; pip install 'esrgan[{extra}]'"
        )


def describe_import_error(error: ImportError) -> str:
    """Return which package cannot be imported and why, for one that is broken or lacks another one."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name}: not installed; try `pip install {error.name.partition('.')[0]}`"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    importer = str(trace.tb_frame.f_globals.get("__name__")) if trace is not None else ""
    module = (error.name if importer.startswith("esrgan") and error.name else importer).partition(".")[0]
    name = packages_distributions().get(module, [module])[0]
    return f"{module}: cannot be imported: {describe_error(error)}; try `pip install --force-reinstall {name}`"
