"""The names, where each model comes from, and how it gets here.

The checksums of the public models are those that others record of the same files. A model is never downloaded unasked,
and never used unless its checksum is right.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from esrgan.errors import DatasetError, WeightsError
from esrgan.files import cache_dir

BUNDLED_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ModelSource:
    """Where a public model is.

    Attributes:
        url: Its address.
        sha256: Its checksum, in hexadecimal.
        size: Bytes; None where nobody records it.
        recorded_by: Who records size and checksum.
    """

    url: str
    sha256: str
    size: int | None
    recorded_by: str


@dataclass(frozen=True)
class PretrainedModel:
    """A generator that has a name.

    Attributes:
        summary: What it is for, in a few words.
        licence: Of the weights; SPDX identifier.
        scale: Factor by which it enlarges.
        psnr_model: Name of the PSNR-oriented generator that it can be blended with; None if there is none.
        source: Where to get it; None of those in this package.
    """

    summary: str
    licence: str
    scale: int = 4
    psnr_model: str | None = None
    source: ModelSource | None = None


_REAL_ESRGAN_URL = "https://github.com/xinntao/Real-ESRGAN/releases/download"
_KAIR_URL = "https://github.com/cszn/KAIR/releases/download/v1.0"
# usercontent answers with the file itself; drive.google.com asks a question first.
_GOOGLE_DRIVE_URL = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
_AUR_CHECKSUMS = "sha256sums of the AUR package python-realesrgan"

DEFAULT_MODEL = "esrgan-lite"
MODELS = {
    "esrgan-lite": PretrainedModel("photographs, 6 blocks", "Apache-2.0", psnr_model="esrgan-lite-psnr"),
    "esrgan-lite-psnr": PretrainedModel("the same without invented texture", "Apache-2.0"),
    "esrgan-full": PretrainedModel("photographs, 23 blocks", "Apache-2.0", psnr_model="esrgan-full-psnr"),
    "esrgan-full-psnr": PretrainedModel("the same without invented texture", "Apache-2.0"),
    "esrgan-official": PretrainedModel(
        "ESRGAN of the paper, for clean images",
        "Apache-2.0",
        psnr_model="esrgan-official-psnr",
        source=ModelSource(
            f"{_KAIR_URL}/ESRGAN.pth",
            "65fece06e1ccb48853242aa972bdf00ad07a7dd8938d2dcbdf4221b59f6372ce",
            None,
            "several repositories, which have it as RRDB_ESRGAN_x4.pth too",
        ),
    ),
    "esrgan-official-psnr": PretrainedModel(
        "RRDB_PSNR of the paper",
        "Apache-2.0",
        source=ModelSource(
            _GOOGLE_DRIVE_URL.format("1pJ_T-V1dpb1ewoEra1TGSWl5e6H7M4NN"),
            "f372b59f22929e1bc83fa58d78215c96f976de3b2eaeee736da1b348913da6cc",
            None,
            "two repositories that download RRDB_PSNR_x4.pth from this address",
        ),
    ),
    "realesrgan-x4plus": PretrainedModel(
        "photographs with noise, blur and JPEG artefacts",
        "BSD-3-Clause",
        psnr_model="realesrnet-x4plus",
        source=ModelSource(
            f"{_REAL_ESRGAN_URL}/v0.1.0/RealESRGAN_x4plus.pth",
            "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
            67_040_989,
            f"{_AUR_CHECKSUMS}, and many others",
        ),
    ),
    "realesrnet-x4plus": PretrainedModel(
        "the same without invented texture",
        "BSD-3-Clause",
        source=ModelSource(
            f"{_REAL_ESRGAN_URL}/v0.1.1/RealESRNet_x4plus.pth",
            "a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df",
            67_040_989,
            f"{_AUR_CHECKSUMS}, and many others",
        ),
    ),
    "realesrgan-x2plus": PretrainedModel(
        "the same kind of photographs, at twice the size",
        "BSD-3-Clause",
        scale=2,
        source=ModelSource(
            f"{_REAL_ESRGAN_URL}/v0.2.1/RealESRGAN_x2plus.pth",
            "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
            67_061_725,
            f"{_AUR_CHECKSUMS}, and many others",
        ),
    ),
    "realesrgan-x4plus-anime": PretrainedModel(
        "drawings and anime, 6 blocks",
        "BSD-3-Clause",
        source=ModelSource(
            f"{_REAL_ESRGAN_URL}/v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
            "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
            17_938_799,
            f"{_AUR_CHECKSUMS}, and many others",
        ),
    ),
    "bsrgan": PretrainedModel(
        "photographs with unknown degradation",
        "Apache-2.0",
        source=ModelSource(
            f"{_KAIR_URL}/BSRGAN.pth",
            "5d505a0766160921e0388d76e1ddf08cb114303990f9080432bf2b1c988b1c54",
            67_046_751,
            "OpenModelDB, data/models/4x-BSRGAN.json",
        ),
    ),
}


def downloads_dir() -> Path:
    """Give the folder of downloaded models: ``models`` in $ESRGAN_CACHE, else in esrgan in the user's cache folder."""
    return cache_dir() / "models"


def _model_path(name: str) -> Path:
    if MODELS[name].source is None:
        return BUNDLED_FOLDER / f"{name}.safetensors"
    return downloads_dir() / f"{name}.pth"


def is_on_disk(name: str) -> bool:
    """Tell whether the file of a named model is on this machine."""
    return os.path.isfile(_model_path(name))  # noqa: PTH113  Path.is_file() fails where a folder may not be entered


def resolve(model: str | Path) -> Path:
    """Give the file of a model.

    Args:
        model: A name of ``MODELS``, or a path. A name is always that model; ``./name`` is the file.

    Raises:
        WeightsError: A public model has not been downloaded, or its file is not the published one.
    """
    name = str(model)
    if name not in MODELS:
        return Path(model)
    if MODELS[name].source and not is_on_disk(name):
        raise WeightsError(f"{name}: is not on this machine yet; `esrgan models {name}` downloads it")
    return download_model(name)


def psnr_partner(model: str) -> str:
    """Give the PSNR-oriented generator that a model can be blended with.

    Raises:
        WeightsError: It is none of ``MODELS``, or has none.
    """
    psnr = MODELS[model].psnr_model if model in MODELS else None
    if psnr is None and model in {other.psnr_model for other in MODELS.values()}:
        raise WeightsError(f"{model}: is the PSNR-oriented generator of a pair; name its partner to blend the two")
    if psnr is None:
        raise WeightsError(
            f"{model}: comes without a PSNR-oriented generator to blend it with; --psnr-model-path names one"
        )
    return psnr


def download_model(
    name: str,
    progress: Callable[[int, int | None], None] | None = None,
    on_retry: Callable[[str], None] | None = None,
) -> Path:
    """Download a public model unless it is here, or the rest of it; what is here is checked again.

    Args:
        name: Of ``MODELS``.
        progress: Called after each piece with the bytes that are here, and those in all if the server tells.
        on_retry: Told why it waits before it asks again.

    Returns:
        Its file.

    Raises:
        WeightsError: There is no such name, the address or the file that is here has something else, no network, or
            a full disk.
    """
    from esrgan.data.download import Download, download

    if name not in MODELS:
        raise WeightsError(f"{name}: expected one of {', '.join(MODELS)}")
    path, source = _model_path(name), MODELS[name].source
    if source is None:
        if not is_on_disk(name):
            raise WeightsError(f"{path}: has been deleted; install esrgan again")
        return path
    try:
        download(Download(source.url, path, source.size, f"sha256:{source.sha256}"), progress, on_retry)
    except DatasetError as error:
        raise WeightsError(error.problems) from error
    return path
