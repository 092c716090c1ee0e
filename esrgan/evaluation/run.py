"""Evaluate models on datasets: check and load everything, then measure one dataset after another."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from esrgan.console import log
from esrgan.data import Folders
from esrgan.data.datasets import default_data_root, find_dataset, find_unpaired
from esrgan.devices import select_device
from esrgan.errors import DatasetError, EsrganError, WeightsError
from esrgan.evaluation.cache import ResultCache
from esrgan.evaluation.measuring import BICUBIC, DatasetImage, Method, Setup, measure_dataset, output_path
from esrgan.evaluation.results import DatasetEvaluation, Evaluation
from esrgan.files import cache_dir, check_output_path, expand_user
from esrgan.inference import Upscaler
from esrgan.metrics import Metric
from esrgan.metrics.learned import load_metrics
from esrgan.text import describe_error
from esrgan.weights import GeneratorFile, extract_state_dict, load_file, load_generator

# These names are taken by files in the output folder and by an entry of the report.
_RESERVED_NAMES = ("sheet", "strip", "conventions")


@dataclass(frozen=True)
class EvaluationOptions:
    """Settings of an evaluation.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps", for the models and for metrics that are networks.
        precision: Precision of the models: "fp32", "bf16", "fp16" or "auto".
        workers: Number of threads that read images, compute metrics and write files.
        data_root: Folder of the named datasets; None for $ESRGAN_DATA, else ``data``.
        vgg_weights: Weight file for the metric "vgg16", in torchvision's layout; None for torchvision's weights.
        download: Whether to download weights that metrics need and that are missing.
        use_cache: Whether to reuse scores of earlier evaluations, and to store the new ones.
        out_dir: Folder for the upscaled images and contact sheets, in a folder for each dataset; None to write none.
        num_shown: Number of best and worst images of each dataset whose crops are kept for the HTML report.
        strips: Names of models to show side by side in a file for each image (``<image>_strip.png``) in ``out_dir``.
    """

    device: str = "auto"
    precision: str = "fp32"
    workers: int = 2
    data_root: str | Path | None = None
    vgg_weights: str | Path | None = None
    download: bool = False
    use_cache: bool = True
    out_dir: str | Path | None = None
    num_shown: int = 0
    strips: Sequence[str] = ()


def evaluate(
    models: Mapping[str, str | Path | GeneratorFile] | Sequence[str | Path | GeneratorFile],
    datasets: Sequence[str | Path],
    metrics: Sequence[str] = ("psnr", "ssim"),
    options: EvaluationOptions | None = None,
) -> Evaluation:
    """Measure models and bicubic upscaling on datasets.

    Progress and errors are logged. An image that cannot be measured does not stop the others.

    Args:
        models: Weight files, checkpoints, model names or loaded generators, all of the same scale and number of
            channels: a list, or a dictionary with the names that they have in the results.
        datasets: Dataset names, HR folders, "HR=LR" pairs of folders, or "=LR" folders without ground truth.
        metrics: Names of ``esrgan.metrics.METRICS``, groups ("psnr", "ssim", "niqe", "lpips", "dists", "vgg16"), or
            "all". The first in the order of ``METRICS`` ranks the images.
        options: Settings; None for the defaults.

    Returns:
        Scores, means, differences with confidence intervals, speeds and errors. ``to_json`` and ``to_csv`` are its
        methods; ``esrgan.evaluation.render_markdown`` and ``render_html`` write reports.

    Raises:
        EsrganError: If the models, datasets, metrics and options do not fit together. Nothing is measured then.

    Example:
        >>> import esrgan
        >>> evaluation = esrgan.evaluate(["esrgan-lite-psnr"], ["."])  # photo.png is in this folder
        >>> photos = evaluation.datasets[0]
        >>> psnr_y = photos.metrics[0]
        >>> for method in photos.methods:
        ...     print(f"{method}: {photos.mean(method, psnr_y)[0]:.1f} dB")
        bicubic: 28.4 dB
        esrgan-lite-psnr: 30.5 dB
        >>> print(esrgan.evaluation.render_markdown(evaluation))
        esrgan-lite-psnr: RRDBNet ×4 ...
    """
    options = options or EvaluationOptions()
    files = _load_models(models)
    scale, channels = _common_kind(files)
    found = {name: _find_images(name, scale, options.data_root) for name in _as_list(datasets)}
    if unknown := {*options.strips} - files.keys():
        raise EsrganError(f"strips: expected names of models, got {', '.join(sorted(unknown))}")
    folders = _choose_folders(options.out_dir, found, [BICUBIC, *files])
    available, unavailable = _load_metrics(_as_list(metrics), options)
    results = [
        DatasetEvaluation(
            name, (BICUBIC, *files), _usable(available, name, each), len(each), left_out, folders.get(name)
        )
        for name, (each, left_out) in found.items()
    ]
    upscalers = {name: Upscaler.from_file(file, options.device, options.precision) for name, file in files.items()}
    facts = {name: _describe_model(files[name], each) for name, each in upscalers.items()}
    evaluation = Evaluation(facts, _describe_conventions(available), results, unavailable)
    for name, fact in evaluation.facts.items():
        log.info("%s: %s", name, fact)
    methods = {BICUBIC: Method.bicubic(scale)} | {name: Method.model(each) for name, each in upscalers.items()}
    setup = Setup(methods, scale, channels, _open_cache(options), options.workers, options.num_shown, options.strips)
    for result in results:
        _measure(result, found[result.dataset][0], setup)
    return evaluation


def unique_names(paths: Iterable[str | Path]) -> list[str]:
    """Return a unique name for each file: its stem, numbered if that is taken or reserved."""
    taken = {BICUBIC, *_RESERVED_NAMES}
    names = []
    for path in map(Path, paths):
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}"
        names.append(name)
        taken.add(name)
    return names


def _as_list(value: Sequence[str | Path] | str | Path) -> list[str]:
    """Return a list of names, also for a single one, which would otherwise be taken for a list of letters."""
    return [str(each) for each in ([value] if isinstance(value, (str, Path)) else value)]


def _load_models(
    models: Mapping[str, str | Path | GeneratorFile] | Sequence[str | Path | GeneratorFile],
) -> dict[str, GeneratorFile]:
    if isinstance(models, (str, Path, GeneratorFile)):
        models = [models]
    if not isinstance(models, Mapping):
        names = unique_names(each.path if isinstance(each, GeneratorFile) else each for each in models)
        models = dict(zip(names, models, strict=True))
    if reserved := {BICUBIC, *_RESERVED_NAMES} & models.keys():
        raise WeightsError(f"{', '.join(sorted(reserved))}: these names are reserved; give the models other names")
    return {name: each if isinstance(each, GeneratorFile) else load_generator(each) for name, each in models.items()}


def _common_kind(files: Mapping[str, GeneratorFile]) -> tuple[int, int]:
    """Return the scale and the number of channels that all models have."""
    kinds = {(file.architecture.scale_factor, file.architecture.img_channels) for file in files.values()}
    if len(kinds) != 1:
        got = ", ".join(f"{file.path}: {file.architecture}" for file in files.values()) or "none"
        raise WeightsError(f"expected models of the same scale and number of channels, got {got}; test them separately")
    return kinds.pop()


def _find_images(dataset: str, scale: int, data_root: str | Path | None) -> tuple[list[DatasetImage], str]:
    """Find the images of a dataset (a name, a folder, HR=LR, HR=LR=TEMPLATE, or =LR), and describe what is left out."""
    high, low, template = [*dataset.split("=", 2), "", ""][:3]
    if not high and not low:
        raise DatasetError("--datasets: expected names, folders, HR=LR or =LR folders, got an empty entry")
    if high:
        source = Folders(high, low, template or None) if low else high
        match = find_dataset(source, "val", scale, expand_user(data_root or default_data_root()))
    else:
        match = find_unpaired(low)
    if match.problems:
        raise DatasetError(match.problems)
    names = unique_names(pair.high for pair in match.pairs)
    found = [
        DatasetImage(name, pair.low if high else pair.high, pair.high if high else None)
        for name, pair in zip(names, match.pairs, strict=True)
    ]
    return found, match.note


def _choose_folders(
    out_dir: str | Path | None, datasets: Mapping[str, tuple[list[DatasetImage], str]], methods: Sequence[str]
) -> dict[str, Path]:
    """Create an output folder for each dataset, named after it, after checking that outputs overwrite nothing."""
    if out_dir is None:
        return {}
    paths = [expand_user(dataset.partition("=")[0] or dataset[1:]).resolve() for dataset in datasets]
    names = unique_names(path.with_name(f"{path.name}.x") for path in paths)
    folders = {dataset: expand_user(out_dir) / name for dataset, name in zip(datasets, names, strict=True)}
    for dataset, (dataset_images, _) in datasets.items():
        _check_folder(folders[dataset], dataset, dataset_images, methods)
    for folder in folders.values():
        check_output_path(folder / "image_sheet.png")
    return folders


def _check_folder(folder: Path, dataset: str, dataset_images: Sequence[DatasetImage], methods: Iterable[str]) -> None:
    """Check that the outputs would overwrite neither the evaluated images nor each other, nor become part of them."""
    places = [expand_user(name).resolve() for name in dataset.split("=")[:2] if name]
    target = folder.resolve()
    for path in {path for each in dataset_images for path in (each.low, each.high) if path is not None}:
        parents = path.resolve().parents
        if target == parents[0] or any(place in parents and target.is_relative_to(place) for place in places):
            raise EsrganError(
                f"{folder}: is in the folder of the images to be evaluated, so that the upscaled images would be "
                "evaluated the next time; choose another output folder"
            )
    names: dict[Path, str] = {}
    for dataset_image in dataset_images:
        for method in (*methods, "sheet", "strip"):
            path = output_path(folder, dataset_image.name, method)
            if path in names:
                raise EsrganError(
                    f"{path}: would be the output of both {names[path]} and {dataset_image.name}; "
                    "rename a model or an image"
                )
            names[path] = dataset_image.name


def _load_metrics(names: Sequence[str], options: EvaluationOptions) -> tuple[list[Metric], list[str]]:
    state = None
    if options.vgg_weights is not None:
        path = expand_user(options.vgg_weights)
        state = extract_state_dict(load_file(path), str(path))
    metrics, unavailable = load_metrics(
        names, select_device(options.device), download=options.download, vgg16_state=state
    )
    for line in unavailable:
        log.warning("%s", line)
    return metrics, unavailable


def _usable(metrics: Sequence[Metric], dataset: str, dataset_images: Sequence[DatasetImage]) -> list[Metric]:
    """Return the metrics that can be measured on a dataset, which may have no ground truth."""
    usable = [metric for metric in metrics if dataset_images[0].high is not None or not metric.needs_reference]
    if not usable:
        raise DatasetError(f"{dataset}: no ground-truth images, which all requested metrics need; use --metrics niqe")
    return usable


def _measure(result: DatasetEvaluation, dataset_images: Sequence[DatasetImage], setup: Setup) -> None:
    try:
        measure_dataset(result, dataset_images, setup)
    except Exception as error:  # even a defect must not lose what was measured before
        log.error("%s", traceback.format_exc())
        result.errors.append(EsrganError(f"{result.dataset}: {type(error).__name__}: {describe_error(error)}"))


def _describe_model(file: GeneratorFile, upscaler: Upscaler) -> str:
    return f"{file.describe()}; on {upscaler.device} in {str(upscaler.dtype).removeprefix('torch.')}"


def _describe_conventions(metrics: Sequence[Metric]) -> str:
    """Describe in one line how the scores are computed."""
    labels: dict[str, list[str]] = {}
    for metric in metrics:
        labels.setdefault(metric.convention, []).append(metric.label)
    return "; ".join(
        [
            "8-bit images, scale px of border cut off, Y is BT.601 studio range",
            "LR images by MATLAB bicubic where the dataset has none",
            *(f"{' and '.join(of)}: {how}" for how, of in labels.items()),
        ]
    )


def _open_cache(options: EvaluationOptions) -> ResultCache:
    try:
        return ResultCache(cache_dir() / "figures" if options.use_cache else None)
    except EsrganError as error:  # without a home folder, everything can be measured but not cached
        log.warning("results are not cached: %s", error)
        return ResultCache(None)
