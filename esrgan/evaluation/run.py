"""Evaluate models on datasets: check and load everything, then measure one dataset after another."""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from esrgan import hub
from esrgan.console import log
from esrgan.data import Folders
from esrgan.data.datasets import default_data_root, find_dataset, find_unpaired
from esrgan.devices import select_device
from esrgan.errors import DatasetError, EsrganError, LostDeviceError, Problem, WeightsError
from esrgan.evaluation.cache import ResultCache
from esrgan.evaluation.measuring import (
    BICUBIC,
    DatasetImage,
    EvaluationOptions,
    Measurement,
    Method,
    curve_path,
    output_path,
)
from esrgan.evaluation.provenance import describe_conventions, describe_run
from esrgan.evaluation.results import DatasetEvaluation, Evaluation
from esrgan.files import check_output_path
from esrgan.inference import Upscaler
from esrgan.inference.upscaler import PRECISIONS
from esrgan.metrics import Metric, select_metrics
from esrgan.metrics.learned import load_metrics
from esrgan.outputs import check_replaceable
from esrgan.paths import cache_dir, describe_path, expand_user, fold_name, name_key
from esrgan.text import describe_error
from esrgan.weight_formats import WEIGHT_SUFFIXES
from esrgan.weights import GeneratorFile, extract_state_dict, load_file, load_generator

Model = str | os.PathLike[str] | GeneratorFile
Dataset = str | os.PathLike[str] | Folders | tuple[str | os.PathLike[str], ...]

# These names are taken by files in the output folder and by an entry of the report.
_RESERVED_NAMES = ("sheet", "strip", "conventions")


def evaluate(
    models: Model | Iterable[Model] | Mapping[str, Model],
    datasets: Dataset | Iterable[Dataset],
    metrics: str | Iterable[str] = ("psnr", "ssim"),
    options: EvaluationOptions | None = None,
    on_dataset: Callable[[Evaluation], object] = lambda _: None,
) -> Evaluation:
    """Measure models and bicubic upscaling on datasets.

    Progress and errors are logged. An image that cannot be measured does not stop the others.

    Args:
        models: Weight files, checkpoints, model names or loaded generators (``GeneratorFile``), all of the same scale
            and number of channels: a list, or a dictionary with the names that they have in the results.
        datasets: Dataset names, HR folders, "HR=LR" pairs of folders, "HR=LR=TEMPLATE=HR_TEMPLATE" with templates for
            the names of their images, or "=LR" folders without ground truth. In a ``Path`` or a tuple of HR and LR
            folders, "=" is part of the name.
        metrics: Names of ``esrgan.metrics.METRICS``, groups ("psnr", "ssim", "niqe", "lpips", "dists", "vgg16",
            "vggstats"), or "all". The first in the order of ``METRICS`` ranks the images.
        options: Settings; None for the defaults.
        on_dataset: Called after each dataset with the results so far, of which ``datasets[-1]`` are new.

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
    options = EvaluationOptions() if options is None else options
    _check_options(options)
    specs = _as_list("datasets", datasets, (str, os.PathLike, tuple), "names, folders, or tuples of folders")
    sources: dict[str, str | Folders] = {}
    for name, source in map(_parse_dataset, specs):
        if sources.setdefault(name, source) != source:
            raise DatasetError(f"datasets: two different ones are called {name}; give the path of a folder from /")
    names_of_metrics = select_metrics(_as_list("metrics", metrics, (str,), "names of metrics"))
    files = _load_models(models)
    scale, channels = _common_kind(files)
    found = {name: _find_images(source, scale, options) for name, source in sources.items()}
    if unknown := {*options.strips} - files.keys():
        raise EsrganError(f"strips: expected names of models, got {', '.join(sorted(unknown))}")
    names = (BICUBIC, *files)
    folders = _choose_folders(options, sources, found, names)
    device = select_device(options.device)  # once, because it warns of each GPU that cannot be used
    available, unavailable = _load_metrics(names_of_metrics, options, device)
    results = [
        DatasetEvaluation(
            name,
            names,
            _usable(available, name, each),
            len(each),
            left_out,
            folders.get(name),
            inputs={image.name: image.files for image in each},
        )
        for name, (each, left_out) in found.items()
    ]
    upscalers = {name: Upscaler.from_file(file, str(device), options.precision) for name, file in files.items()}
    descriptions = {
        name: f"{files[name].describe()}; on {each.device} in {each.arithmetic}" for name, each in upscalers.items()
    }
    run = describe_run(device)
    evaluation = Evaluation(descriptions, describe_conventions(available, scale), [], unavailable, run)
    for name, fact in evaluation.facts.items():
        log.info("%s: %s", name, fact)
    methods = {BICUBIC: Method.bicubic(scale)} | {name: Method.model(each) for name, each in upscalers.items()}
    cache = _open_cache(options)
    for result in results:
        try:
            Measurement(result, methods, scale, channels, cache, options).run(found[result.dataset][0])
        except LostDeviceError:
            raise
        except Exception as error:  # even a defect must not lose what was measured before
            log.error("%s", traceback.format_exc())
            result.errors.append(EsrganError(f"{result.dataset}: {type(error).__name__}: {describe_error(error)}"))
        evaluation.datasets.append(result)
        on_dataset(evaluation)
    return evaluation


def unique_names(paths: Iterable[str | Path], key: Callable[[str], str] = fold_name) -> list[str]:
    """Return a unique name for each file: its stem, numbered if that is taken or reserved.

    Names are the same if their keys are; by default they differ in more than case.
    """
    taken = {BICUBIC, *_RESERVED_NAMES}
    names = []
    for path in map(Path, paths):
        name, number = path.stem, 1
        while key(name) in taken:
            number += 1
            name = f"{path.stem}-{number}"
        names.append(name)
        taken.add(key(name))
    return names


def _check_options(options: EvaluationOptions) -> None:
    if not isinstance(options, EvaluationOptions):
        raise EsrganError(f"options: expected EvaluationOptions, got {type(options).__name__}")
    for name, least in (("workers", 1), ("num_shown", 0)):
        value = getattr(options, name)
        if not isinstance(value, int) or value < least:
            raise EsrganError(f"{name}: expected an integer of at least {least}, got {value!r}")
    if isinstance(options.strips, str):
        raise EsrganError(f"strips: expected a list of names of models, got {options.strips!r}")
    if options.precision not in PRECISIONS:
        raise EsrganError(f"precision: expected {', '.join(PRECISIONS)}, got {options.precision!r}")


def _as_list(argument: str, value: Any, kinds: tuple[type, ...], expected: str) -> list[Any]:
    """Return a list of values, also for a single one, which could otherwise be taken for a list of letters."""
    is_single = isinstance(value, (*kinds, bytes)) and type(value) is not tuple
    is_single |= not isinstance(value, Iterable)
    values = [value] if is_single else list(value)
    got = next((type(each).__name__ for each in values if not isinstance(each, kinds)), None if values else "none")
    if got:
        raise EsrganError(f"{argument}: expected {expected}, got {got}")
    return values


def _load_models(models: Model | Iterable[Model] | Mapping[str, Model]) -> dict[str, GeneratorFile]:
    values = models.values() if isinstance(models, Mapping) else models
    kinds, expected = (str, os.PathLike, GeneratorFile), "weight files, names of models or GeneratorFile objects"
    values = _as_list("models", values, kinds, expected)
    if isinstance(models, Mapping):
        names = _as_list("models", models.keys(), (str,), "names that are texts")
    else:
        names = unique_names(_path_with_suffix(each) for each in values)
    if reserved := [name for name in names if fold_name(name) in (BICUBIC, *_RESERVED_NAMES, "")]:
        raise WeightsError(f"{', '.join(reserved) or 'no name'}: these names are reserved; give the models other names")
    files = (each if isinstance(each, GeneratorFile) else load_generator(each) for each in values)
    return dict(zip(names, files, strict=True))


def _path_with_suffix(model: Model) -> str | Path:
    """Return the path of a model; names of repositories get a suffix, because ".1" in hf:owner/x-v1.1 is none."""
    path = model.path if isinstance(model, GeneratorFile) else os.fspath(model)
    is_repository = str(path).startswith(hub.PREFIX) and not str(path).endswith(WEIGHT_SUFFIXES)
    return f"{path}.x" if is_repository else path


def _parse_dataset(dataset: Dataset) -> tuple[str, str | Folders]:
    """Return a dataset's name in the results, and the dataset: a name or folders, without HR for "=LR"."""
    if isinstance(dataset, tuple):
        try:
            folders = Folders(*(part and os.fspath(part) for part in dataset))  # type: ignore[arg-type]
        except TypeError as error:
            raise DatasetError(f"datasets: expected a tuple of HR and LR folders, got {dataset!r}") from error
        parts = folders[:3] if folders.high_template == "{stem}" else folders
        return "=".join(part or "" for part in parts).rstrip("="), folders
    name = os.fspath(dataset)
    if not isinstance(dataset, str) or ("=" in name and describe_path(expand_user(name)) == "a folder"):
        return name, Folders(name)
    number = 3 if name.count("{stem}") > 1 else 2  # of the separators; a template may contain the character too
    high, low, low_template, high_template = [*name.split("=", number), "", "", ""][:4]
    if not high and not low:
        raise DatasetError("datasets: expected names, folders, HR=LR or =LR folders, got an empty entry")
    if low_template or high_template:
        return name, Folders(high, low or None, low_template or "{stem}", high_template or "{stem}")
    return name, Folders(high, low) if low else high


def _common_kind(files: Mapping[str, GeneratorFile]) -> tuple[int, int]:
    """Return the scale and the number of channels that all models have."""
    for file in files.values():
        if file.architecture.in_channels != file.architecture.img_channels:
            got = f"{file.architecture}, whose output has no reference"
            raise WeightsError(Problem(str(file.path), "a network for images with the same channels", got))
        if not math.isclose(file.scale, round(file.scale), rel_tol=1e-3):
            raise WeightsError(Problem(str(file.path), "a whole upscaling factor", f"×{file.scale:g}"))
    kinds = {(round(file.scale), file.architecture.img_channels) for file in files.values()}
    if len(kinds) != 1:
        got = ", ".join(f"{file.path}: {file.size}" for file in files.values()) or "none"
        raise WeightsError(f"expected models of the same scale and number of channels, got {got}; test them separately")
    return kinds.pop()


def _find_images(source: str | Folders, scale: int, options: EvaluationOptions) -> tuple[list[DatasetImage], str]:
    """Find the images of a dataset, and describe what is left out."""
    if is_unpaired := isinstance(source, Folders) and not source.high:
        match = find_unpaired(source[1] or "")
    else:
        match = find_dataset(source, "val", scale, expand_user(options.data_root or default_data_root()))
    if match.problems:
        raise DatasetError(match.problems)
    # Folders with names such as aB3.png and ab3.png exist, and most disks can hold their outputs.
    key = str if options.out_dir is None else name_key(expand_user(options.out_dir))
    names = unique_names((pair.high for pair in match.pairs), key)
    found = [
        DatasetImage(name, pair.high, None) if is_unpaired else DatasetImage(name, pair.low, pair.high)
        for name, pair in zip(names, match.pairs, strict=True)
    ]
    return found, match.note


def _choose_folders(
    options: EvaluationOptions,
    sources: Mapping[str, str | Folders],
    found: Mapping[str, tuple[list[DatasetImage], str]],
    methods: Sequence[str],
) -> dict[str, Path]:
    """Create an output folder for each dataset, named after it, after checking that outputs overwrite nothing."""
    if options.out_dir is None:
        return {}
    if unusable := [method for method in methods if "/" in method or "\0" in method]:
        raise EsrganError(f"{unusable[0]!r}: output files cannot have this name of a model; choose another one")
    known: dict[str, str] = {}
    for method in methods:
        if (other := known.setdefault(fold_name(method), method)) != method:
            raise EsrganError(f"{method}: differs only in case from {other}; give the models other names")
    places = {
        name: [expand_user(each).resolve() for each in ([source] if isinstance(source, str) else source[:2]) if each]
        for name, source in sources.items()
    }
    names = unique_names(f"{paths[0].name or 'root'}.x" for paths in places.values())
    folders = {dataset: expand_user(options.out_dir) / name for dataset, name in zip(sources, names, strict=True)}
    longest = [
        _check_folder(folders[dataset], places[dataset], dataset_images, methods, bool(options.strips))
        for dataset, (dataset_images, _) in found.items()
    ]
    for path in longest:
        check_output_path(path)
    return folders


def _check_folder(
    folder: Path, places: Iterable[Path], dataset_images: Sequence[DatasetImage], methods: Iterable[str], strips: bool
) -> Path:
    """Check that the outputs would overwrite no file of the user's nor each other, nor become part of the dataset.

    Returns:
        The output with the longest name.
    """
    used = {path.resolve().parent for each in dataset_images for path in (each.low, each.high) if path}
    used |= {place for place in places if any(each.is_relative_to(place) for each in used)}
    if any(folder.resolve().is_relative_to(each) for each in used):
        raise EsrganError(
            f"{folder}: is in the folder of the images to be evaluated, so that the upscaled images would be "
            "evaluated the next time; choose another output folder"
        )
    key = name_key(folder)
    owners: dict[str, tuple[Path, str]] = {}
    for image in dataset_images:
        for method in (*methods, "sheet", *["strip"] * strips):
            path = output_path(folder, image.name, method)
            _, owner = owners.setdefault(key(path.name), (path, image.name))
            if owner != image.name:
                raise EsrganError(
                    f"{path}: would be the output of both {owner} and {image.name}; rename a model or an image"
                )
    outputs = [path for path, _ in owners.values()]
    for path in (*outputs, *[curve_path(folder)] * strips):
        check_replaceable(path)
    return max(outputs, key=lambda path: len(os.fsencode(path)))


def _load_metrics(
    names: Sequence[str], options: EvaluationOptions, device: torch.device
) -> tuple[list[Metric], list[str]]:
    path = None if options.vgg_weights is None else expand_user(options.vgg_weights)
    state = extract_state_dict(load_file(path), str(path)) if path else None
    metrics, unavailable = load_metrics(names, device, download=options.download, vgg16_state=state)
    for line in unavailable:
        log.warning("%s", line)
    return metrics, unavailable


def _usable(metrics: Sequence[Metric], dataset: str, dataset_images: Sequence[DatasetImage]) -> list[Metric]:
    """Return the metrics that can be measured on a dataset, which may have no ground truth."""
    usable = [metric for metric in metrics if dataset_images[0].high is not None or not metric.needs_reference]
    if not usable:
        raise DatasetError(f"{dataset}: no ground-truth images, which all requested metrics need; use the metric niqe")
    return usable


def _open_cache(options: EvaluationOptions) -> ResultCache:
    try:
        return ResultCache(cache_dir() / "scores" if options.use_cache else None)
    except EsrganError as error:  # without a home folder, everything can be measured but not cached
        log.warning("results are not cached: %s", error)
        return ResultCache(None)
