"""Entry points for ``torch.hub.load("OWNER/esrgan", NAME)``, from a repository on GitHub that has this file.

Each returns a network in evaluation mode, for images (B, C, H, W) in [0, 1]. ``upscaler`` returns an
``esrgan.Upscaler``, which takes files, arrays and images of any size.
"""

import torch

dependencies = ["numpy", "PIL", "psutil", "pyvips", "safetensors", "scipy", "torch", "typing_extensions"]


def generator(model: str = "esrgan-photo") -> torch.nn.Module:
    """Load a generator: a name that `esrgan models` lists, a weight file, or hf:owner/name."""
    from esrgan import load_generator

    return load_generator(model).build()


def upscaler(model: str = "esrgan-photo", **options):
    """Load an ``esrgan.Upscaler``; the options are those of ``Upscaler.from_file``."""
    from esrgan import Upscaler

    return Upscaler.from_file(model, **options)


def esrgan_photo() -> torch.nn.Module:
    """Load the ×4 model for photographs with JPEG artefacts and a little noise."""
    return generator("esrgan-photo")


def esrgan_lite() -> torch.nn.Module:
    """Load the ×4 model for clean photographs, with 6 blocks."""
    return generator("esrgan-lite")


def esrgan_full() -> torch.nn.Module:
    """Load the ×4 model for clean photographs, with 23 blocks."""
    return generator("esrgan-full")
