"""Models by name: the bundled ones, and public ones that are downloaded on request."""

from esrgan.pretrained.catalogue import (
    DEFAULT_MODEL,
    DEFAULT_PAIR,
    DEFAULT_VIDEO_MODEL,
    MODELS,
    ModelSource,
    PretrainedModel,
    download_model,
    downloads_dir,
    is_on_disk,
    psnr_partner,
    resolve,
)
from esrgan.pretrained.known import KnownModel, describe_licence, identify

__all__ = [
    "DEFAULT_MODEL",
    "DEFAULT_PAIR",
    "DEFAULT_VIDEO_MODEL",
    "MODELS",
    "KnownModel",
    "ModelSource",
    "PretrainedModel",
    "describe_licence",
    "download_model",
    "downloads_dir",
    "identify",
    "is_on_disk",
    "psnr_partner",
    "resolve",
]
