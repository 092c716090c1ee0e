"""The catalogue of named models, their sources, and the download of public models.

The checksums of public models are the ones that third parties have published for the same files. A model is downloaded
only on request, and used only if its checksum matches.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from esrgan import hub
from esrgan.errors import DownloadError, EsrganError, WeightsError
from esrgan.paths import cache_dir, expand_user
from esrgan.text import did_you_mean

BUNDLED_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ModelSource:
    """The published file of a public model.

    Attributes:
        url: Address of the file.
        sha256: Checksum of the file, in hexadecimal.
        size: Size in bytes; None if it is not published.
        recorded_by: Source of the checksum and the size.
    """

    url: str
    sha256: str
    size: int | None
    recorded_by: str


@dataclass(frozen=True)
class PretrainedModel:
    """A generator that commands accept by name.

    Attributes:
        summary: Its purpose, in a few words.
        licence: Licence of the weights, as an SPDX identifier.
        scale: Upscaling factor.
        psnr_model: Name of the model that it can be blended with, or None: the PSNR-oriented generator of the same
            network, or the one that keeps noise.
        source: The file to download; None for bundled models.
    """

    summary: str
    licence: str
    scale: int = 4
    psnr_model: str | None = None
    source: ModelSource | None = None


_REAL_ESRGAN_URL = "https://github.com/xinntao/Real-ESRGAN/releases/download"
_KAIR_URL = "https://github.com/cszn/KAIR/releases/download/v1.0"
# drive.usercontent.google.com sends the file at once; drive.google.com first asks for confirmation.
_GOOGLE_DRIVE_URL = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
_AUR_CHECKSUMS = "sha256sums of the AUR package python-realesrgan"

DEFAULT_MODEL, DEFAULT_PAIR = "esrgan-photo", "esrgan-lite"
DEFAULT_VIDEO_MODEL = "realesr-animevideov3"
MODELS = {
    "esrgan-photo": PretrainedModel(
        "photographs with JPEG artefacts and some noise, 6 blocks", "Apache-2.0", psnr_model="esrgan-photo-psnr"
    ),
    "esrgan-photo-psnr": PretrainedModel("PSNR partner of esrgan-photo, without invented texture", "Apache-2.0"),
    "esrgan-lite": PretrainedModel("clean photographs, 6 blocks", "Apache-2.0", psnr_model="esrgan-lite-psnr"),
    "esrgan-lite-psnr": PretrainedModel("PSNR partner of esrgan-lite, without invented texture", "Apache-2.0"),
    "esrgan-full": PretrainedModel("clean photographs, 23 blocks", "Apache-2.0", psnr_model="esrgan-full-psnr"),
    "esrgan-full-psnr": PretrainedModel("PSNR partner of esrgan-full, without invented texture", "Apache-2.0"),
    "esrgan-compact": PretrainedModel(
        "clean photographs and videos, small and fast", "Apache-2.0", psnr_model="esrgan-compact-psnr"
    ),
    "esrgan-compact-psnr": PretrainedModel("PSNR partner of esrgan-compact, without invented texture", "Apache-2.0"),
    "esrgan-official": PretrainedModel(
        "the paper's ESRGAN, for clean images",
        "Apache-2.0",
        psnr_model="esrgan-official-psnr",
        source=ModelSource(
            f"{_KAIR_URL}/ESRGAN.pth",
            "65fece06e1ccb48853242aa972bdf00ad07a7dd8938d2dcbdf4221b59f6372ce",
            None,
            "several repositories, also under the name RRDB_ESRGAN_x4.pth",
        ),
    ),
    "esrgan-official-psnr": PretrainedModel(
        "the paper's RRDB_PSNR, PSNR partner of esrgan-official",
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
        "PSNR partner of realesrgan-x4plus, without invented texture",
        "BSD-3-Clause",
        source=ModelSource(
            f"{_REAL_ESRGAN_URL}/v0.1.1/RealESRNet_x4plus.pth",
            "a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df",
            67_040_989,
            f"{_AUR_CHECKSUMS}, and many others",
        ),
    ),
    "realesrgan-x2plus": PretrainedModel(
        "photographs with noise, blur and JPEG artefacts",
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
    "realesr-general-x4v3": PretrainedModel(
        "photographs, small and fast; --alpha sets the denoising strength",
        "BSD-3-Clause",
        psnr_model="realesr-general-wdn-x4v3",
        source=ModelSource(
            f"{_REAL_ESRGAN_URL}/v0.2.5.0/realesr-general-x4v3.pth",
            "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
            4_885_111,
            "OpenModelDB, data/models/4x-realesr-general-x4v3.json",
        ),
    ),
    "realesr-general-wdn-x4v3": PretrainedModel(
        "partner of realesr-general-x4v3 that keeps noise",
        "BSD-3-Clause",
        source=ModelSource(
            f"{_REAL_ESRGAN_URL}/v0.2.5.0/realesr-general-wdn-x4v3.pth",
            "1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
            4_885_111,
            "OpenModelDB, data/models/4x-realesr-general-wdn-x4v3.json",
        ),
    ),
    "realesr-animevideov3": PretrainedModel("drawings and anime, small and fast", "BSD-3-Clause"),
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
    """Return the folder of downloaded models: ``models`` in $ESRGAN_CACHE, else in esrgan's user cache folder."""
    return cache_dir() / "models"


def _model_path(name: str) -> Path:
    if MODELS[name].source is None:
        return BUNDLED_FOLDER / f"{name}.safetensors"
    return downloads_dir() / f"{name}.pth"


def is_on_disk(name: str) -> bool:
    """Return whether the file of a named model exists on this machine."""
    try:
        return os.path.isfile(_model_path(name))  # noqa: PTH113  Path.is_file() raises in a folder without access
    except EsrganError:  # without a home folder there are no downloads
        return False


def resolve(model: str | os.PathLike[str]) -> Path:
    """Return the path of a model's file.

    Args:
        model: A name in ``MODELS``, a path, or a reference such as ``hf:owner/name`` to a file on the Hugging Face Hub,
            which is downloaded if it is new (``esrgan.hub``). A name always means that model; write ``./name`` for a
            file of that name.

    Raises:
        WeightsError: If a public model has not been downloaded, its checksum is wrong, or there is no such file on the
            Hugging Face Hub.
    """
    name = os.fspath(model)
    if name.startswith(hub.PREFIX):
        return hub.HubFile.parse(name).download()
    if name not in MODELS:
        return expand_user(name)
    if MODELS[name].source and not is_on_disk(name):
        raise WeightsError(f"{name}: not downloaded yet; run `esrgan models {name}` first")
    return download_model(name)


def psnr_partner(model: str) -> str:
    """Return the name of the partner that a model can be blended with, mostly the PSNR-oriented generator of a pair.

    Raises:
        WeightsError: If the model is not in ``MODELS`` or has no such partner.
    """
    psnr = MODELS[model].psnr_model if model in MODELS else None
    gan = next((name for name, other in MODELS.items() if other.psnr_model == model), None)
    if psnr is None and gan is not None:
        raise WeightsError(f"{model}: this is the partner of {gan}; pass {gan} to blend the two")
    if psnr is None:
        raise WeightsError(f"{model}: has no partner to blend with; pass a model with --psnr-model-path")
    return psnr


def download_model(name: str) -> Path:
    """Download a public model, or the rest of it, unless it is complete; verify its checksum in either case.

    Args:
        name: A name in ``MODELS``.

    Returns:
        The path of the model's file.

    Raises:
        WeightsError: If the name is unknown, the checksum is wrong, the network fails or the disk is full.
    """
    from esrgan.download import Download, download

    if name not in MODELS:
        raise WeightsError(f"{name}: no such model; {did_you_mean(name, MODELS, '`esrgan models` lists them')}")
    path, source = _model_path(name), MODELS[name].source
    if source is None:
        if not is_on_disk(name):
            raise WeightsError(f"{path}: this bundled model is missing; reinstall esrgan")
        return path
    try:
        download(Download(source.url, path, f"sha256:{source.sha256}", source.size))
    except DownloadError as error:
        raise WeightsError(error.problems) from error
    return path
