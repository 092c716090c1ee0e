"""Nodes for ComfyUI: load, blend and apply generators.

docs/how_to/other_programs.md explains how to install them, and ../README.md how they are tested.
"""

from __future__ import annotations

import sys
from typing import Any

import comfy.model_management as management
import comfy.utils
import folder_paths
import torch
from torch import Tensor

try:
    from esrgan import Upscaler, blend, load_generator
    from esrgan.inference.tiling import subprogress
    from esrgan.pretrained import MODELS
    from esrgan.weights import GeneratorFile
except ImportError as error:
    raise ImportError(
        f"the package esrgan or one that it needs ({error.name}) is missing in the Python that runs ComfyUI; "
        f'in a clone of esrgan, run: "{sys.executable}" -m pip install .'
    ) from error

CATEGORY = "image/upscaling/ESRGAN"
_MODEL_FOLDER = "upscale_models"  # ComfyUI's folder for the models of its own upscaling node
# On a GPU, a part of an image takes up to 2.5 GB, and the upscaler uses at most 60 % of the free memory.
_GPU_BYTES = 4 << 30


class EsrganLoadModel:
    """Load a generator by its name, or from a file in ComfyUI's folder ``models/upscale_models``."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Loads a generator of the ESRGAN family: a named model, or a file in models/upscale_models."
    RETURN_TYPES = ("ESRGAN_MODEL",)
    RETURN_NAMES = ("model",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs: the names of the catalogue, followed by the files."""
        return {"required": {"model": ([*MODELS, *folder_paths.get_filename_list(_MODEL_FOLDER)],)}}

    def load(self, model: str) -> tuple[GeneratorFile]:
        """Return the generator.

        Raises:
            WeightsError: If a named model has not been downloaded, or a file is not a generator.
        """
        path = None if model in MODELS else folder_paths.get_full_path(_MODEL_FOLDER, model)
        return (load_generator(path or model),)


class EsrganBlendModels:
    """Blend a PSNR-oriented and a GAN-trained generator by network interpolation (ESRGAN §3.4)."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Blends the weights of two models: (1 − α)·PSNR + α·GAN. A smaller α has less texture and less noise."
    RETURN_TYPES = ("ESRGAN_MODEL",)
    RETURN_NAMES = ("model",)
    FUNCTION = "blend"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs: the two generators and α."""
        alpha = {"default": 0.8, "min": 0.0, "max": 1.0, "step": 0.05}
        return {"required": {"psnr": ("ESRGAN_MODEL",), "gan": ("ESRGAN_MODEL",), "alpha": ("FLOAT", alpha)}}

    def blend(self, psnr: GeneratorFile, gan: GeneratorFile, alpha: float) -> tuple[GeneratorFile]:
        """Return the blend.

        Raises:
            WeightsError: If the architectures differ.
        """
        return (blend(psnr, gan, alpha),)


class EsrganUpscaleImage:
    """Upscale images of any size in little memory."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Upscales images of any size, in strips that fit into the free memory and leave no seams."
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Return the inputs: the generator and the images."""
        return {"required": {"model": ("ESRGAN_MODEL",), "image": ("IMAGE",)}}

    def upscale(self, model: GeneratorFile, image: Tensor) -> tuple[Tensor]:
        """Upscale a batch.

        Args:
            model: The generator.
            image: (B, H, W, C) in [0, 1], where C is 1 (grey), 3 (RGB) or 4 (RGB and alpha).

        Returns:
            (B, scale·H, scale·W, C) in [0, 1], with the type and on the device of the input.

        Raises:
            DeviceError: If the device is not supported, or has too little memory.
        """
        device = management.get_torch_device()
        if device.type != "cpu":
            management.free_memory(_GPU_BYTES, device)  # unloads other models if there is less
        upscaler = Upscaler.from_file(model, str(device))
        bar = comfy.utils.ProgressBar(1000)

        def report(share: float) -> None:
            management.throw_exception_if_processing_interrupted()
            bar.update_absolute(round(1000 * share))

        low = image.to("cpu", torch.float32).numpy()
        count, height, width, channels = low.shape
        high = torch.empty(count, *upscaler.output_size(height, width), channels)
        for i in range(count):
            upscaler(low[i], subprogress(report, i, count), out=high[i].numpy())
        return (high.to(image),)


NODE_CLASS_MAPPINGS = {each.__name__: each for each in (EsrganLoadModel, EsrganBlendModels, EsrganUpscaleImage)}
NODE_DISPLAY_NAME_MAPPINGS = {
    "EsrganLoadModel": "Load ESRGAN Model",
    "EsrganBlendModels": "Blend ESRGAN Models",
    "EsrganUpscaleImage": "Upscale Image (ESRGAN)",
}
