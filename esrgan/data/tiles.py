"""Cut HR images into overlapping tiles, without those that teach a network nothing or something wrong.

Everything is measured first, so that what is dropped can be looked at before the tiles are written. The measures are
kept, one line of JSON for each image, and another line says which tiles have been written of it: a run that is
interrupted or repeated with other bounds repeats neither.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from esrgan import images
from esrgan.console import log
from esrgan.data.datasets import DATASET_NAMES, TILE_FILES, common_channels, find_dataset, find_pairs_and_problems
from esrgan.data.downscale import create_output_folder
from esrgan.data.record import Key, add_line, read_lines
from esrgan.data.tile_choice import (
    Bounds,
    Dropped,
    Known,
    Source,
    Tile,
    choose_tiles,
    measure_sources,
    omit_transparent,
    read_source,
)
from esrgan.data.tile_sheet import make_sheet
from esrgan.errors import DatasetError, EsrganError, Problem, shorten
from esrgan.files import write_text
from esrgan.locks import lock
from esrgan.machine import map_in_threads
from esrgan.outputs import PREPARE_SOFTWARE, check_replaceable, is_output
from esrgan.paths import expand_user, find_name_problem, is_link, name_key
from esrgan.progress import Progress, explain_interrupt
from esrgan.text import describe_error, format_count, format_size

RECORD, LIST, SHEET = TILE_FILES
_SCALE = 4  # of LR images that might be in the folders, which are refused
_REMEDY = "choose another folder for the tiles"


def cut_tiles(datasets: Sequence[str], data_root: Path, out: Path, bounds: Bounds, workers: int) -> list[str | Problem]:
    """Cut the HR images of datasets into tiles of 480 px, each beginning 240 px after the one before.

    Tiles that exist are kept if their image has not changed since they were cut. Files of the user are not replaced.

    Args:
        datasets: Names or folders; the tiles have the same subfolders.
        data_root: Folder that holds the named datasets.
        out: Folder for the tiles.
        bounds: Which tiles are kept.
        workers: Number of threads.

    Returns:
        The problems with single images. The others have been cut.

    Raises:
        EsrganError: If images cannot be found, or the tiles cannot be written or do not fit on the disk.
    """
    problems: list[str | Problem] = []
    sources = _find_sources(datasets, data_root, out, problems)
    create_output_folder(out, RECORD, _REMEDY)
    for name in (LIST, SHEET):
        check_replaceable(out / name)
    try:
        busy = f"{out}: another process is cutting tiles"
        with explain_interrupt(lambda: "the same command resumes"), lock(out / RECORD, busy) as record:
            problems += _cut_sources(sources, record, out, bounds, workers)
    except OSError as error:
        remedy = "free some space or make the folder writable, and run the command again"
        raise DatasetError(f"{out}: cannot be written: {describe_error(error)}; {remedy}") from error
    return shorten(problems)


def _cut_sources(
    sources: Sequence[Source], record: BinaryIO, out: Path, bounds: Bounds, workers: int
) -> list[str | Problem]:
    problems: list[str | Problem] = []
    known, written = _read_record(out / RECORD)
    tiles = omit_transparent(measure_sources(sources, known, record, workers, problems), problems)
    kept, dropped = choose_tiles(tiles, bounds)
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in Counter(each.reason for each in dropped).items())
    summary = f"{len(kept):,} kept, {len(dropped):,} dropped{f' ({reasons})' if reasons else ''}"
    log.info(f"{out}: {format_count(len(tiles), 'tile')} of {format_count(len(sources), 'image')}: {summary}")
    _remove_outdated(out, kept, dropped)
    _report_dropped(out, dropped, workers)
    problems += _write_tiles(kept, written, record, out, workers)
    name = f"./{out}" if str(out) in DATASET_NAMES else str(out)  # not the published dataset
    if not kept:
        problems.append(f"{out}: no tile is kept; see {LIST}, and give other bounds or images")
    elif unusable := find_dataset(name, "train", _SCALE, Path()).problems:
        problems += unusable
    else:
        with_alpha = ', with "img_channels": 4' if common_channels({tile.shape[2] for tile in kept}) == 4 else ""
        entry = f"[{json.dumps(name, ensure_ascii=False)}]{with_alpha}"
        log.info(f'{out}: use in a configuration: "train_datasets": {entry}')
    return problems


def _find_sources(datasets: Sequence[str], data_root: Path, out: Path, problems: list[str | Problem]) -> list[Source]:
    """Return the images to cut, and add those whose tiles cannot have their names to the problems."""
    key = name_key(out)
    folders: set[str] = set()
    sources: dict[Path, Source] = {}
    taken: dict[str, Path] = {}
    failures = []
    for dataset in datasets:
        pairs, found = find_pairs_and_problems([dataset], "train", _SCALE, data_root)
        failures += found
        folder = None if dataset in DATASET_NAMES else expand_user(dataset)
        if folder and any(pair.low for pair in pairs):
            got = "a folder that has their LR images too"
            failures.append(Problem(dataset, "HR images only", got, "name the folder of the HR images"))
        for images_folder in {folder} if folder else {pair.high.parent for pair in pairs}:
            own, target = (Path(os.path.realpath(path)) for path in (images_folder, out))
            if target.is_relative_to(own):
                failures.append(Problem(str(out), f"a folder outside {images_folder}", "one in it", _REMEDY))
            elif own.is_relative_to(target):
                failures.append(Problem(str(images_folder), f"a folder outside {out}", "one in it", _REMEDY))
        base = dataset if folder is None else Path(os.path.realpath(folder)).name.lstrip(".")
        base = "images" if not base or images.is_omitted(base) else base
        numbered = (f"{base}_{number}" if number > 1 else base for number in range(1, len(datasets) + 1))
        place = next(name for name in numbered if key(name) not in folders)
        folders.add(key(place))
        if is_link(out / place):
            failures.append(Problem(str(out / place), "a folder for tiles", "a link", f"remove it, or {_REMEDY}"))
        for path in (pair.high for pair in pairs):
            below = path.relative_to(folder) if folder else Path(path.name)
            source = Source(path, (place / below.with_suffix("")).as_posix())
            if problem := find_name_problem(out / source.tile_name(1)):
                problems.append(problem)
            elif taken.setdefault(key(source.name), path) == path:
                sources.setdefault(Path(os.path.realpath(path)), source)
            else:
                got = f"{taken[key(source.name)].name} as well"
                problems.append(Problem(str(path), "only one image of this name", got, "rename one of them"))
    if failures:
        raise DatasetError(failures)
    return list(sources.values())


def _read_record(path: Path) -> tuple[dict[Key, Known], dict[str, Key]]:
    """Return shape and measures of images by ``Source.key``, and the key of the image that each tile was cut from."""
    known: dict[Key, Known] = {}
    written: dict[str, Key] = {}
    for key, values in read_lines(path):
        try:
            if len(values) == 1:
                written |= dict.fromkeys(values[0], key)
            else:
                shape, measures = values
                known[key] = tuple(shape), measures
        except (ValueError, TypeError):  # a damaged line
            continue
    return known, written


def _remove_outdated(out: Path, kept: Sequence[Tile], dropped: Sequence[Dropped]) -> None:
    """Delete tiles of earlier runs that are dropped now, and warn of images that are no tiles of these images."""
    outdated, current = {out / each.tile.name for each in dropped}, {out / tile.name for tile in kept}
    others = []
    for path in images.list_files(out)[0]:
        if path in outdated and is_output(path):
            path.unlink()
        elif path not in current and path.name not in TILE_FILES and path.suffix.lower() in images.SUFFIXES:
            others.append(path)
    if others:
        text = f"{format_count(len(others), 'image')} not cut from the given ones (first: {others[0]})"
        log.warning(f"{out}: also has {text}; delete what should not be trained on")


def _report_dropped(out: Path, dropped: Sequence[Dropped], workers: int) -> None:
    """Write the list and the contact sheet of the dropped tiles, unless they are as before."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["tile", "image", "left", "top", "width", "height", "reason", "value", "bound", "like"])
    for tile, reason, value, bound, like in dropped:
        place = [tile.left, tile.top, tile.shape[1], tile.shape[0]]
        rows.writerow([tile.name, tile.source.path, *place, reason, value, bound, like.name if like else ""])
    path, sheet, content = out / LIST, out / SHEET, text.getvalue()
    is_known = path.exists() and path.read_text("utf-8", "surrogateescape") == content
    if not is_known or sheet.exists() != bool(dropped):
        sheet.unlink(missing_ok=True)  # so that an interruption leaves no sheet of other tiles
        write_text(path, content)
        if dropped:
            images.write_pixels(sheet, make_sheet(dropped, read_source, workers), software=PREPARE_SOFTWARE)
    if dropped:
        log.info(f"{path} lists what is dropped and why, and {sheet} shows it")


def _write_tiles(
    tiles: Sequence[Tile], written: Mapping[str, Key], record: BinaryIO, out: Path, workers: int
) -> list[str | Problem]:
    """Write the tiles that do not exist or were cut from another image, and return the problems."""
    todo: dict[Source, list[Tile]] = {}
    for tile in tiles:
        if written.get(tile.name) != tile.source.key or not os.path.lexists(out / tile.name):
            todo.setdefault(tile.source, []).append(tile)
    sizes: dict[Hashable, float] = {
        source: sum(math.prod(tile.shape) for tile in group) for source, group in todo.items()
    }
    need, free = sum(sizes.values()), shutil.disk_usage(out).free
    if need > free:
        raise DatasetError(Problem(str(out), f"{format_size(need)} free", format_size(free), "free some space"))
    count = sum(map(len, todo.values()))
    log.info(f"{out}: {format_count(count, 'tile')} to write{f', up to {format_size(need)}' if todo else ''}")
    shown = Progress(sizes, f"{out}: ")

    def describe_interruption() -> str:
        images_done = f"{shown.finished:,} of {format_count(len(todo), 'image')}"
        return f"tiles of {images_done} written; the same command writes the others"

    problems: list[str | Problem] = []
    with explain_interrupt(describe_interruption):
        for source, found in map_in_threads(
            lambda source: _cut(source, todo[source], record, out), list(todo), workers
        ):
            problems += found
            shown.finish(source)
    return problems


def _cut(source: Source, tiles: Sequence[Tile], record: BinaryIO, out: Path) -> list[str | Problem]:
    """Write some tiles of an image and return the problems."""
    names: list[str] = []
    problems: list[str | Problem] = []
    try:
        image = read_source(source)
        (out / tiles[0].name).parent.mkdir(parents=True, exist_ok=True)
        for tile in tiles:
            if tile.cut(image).shape != tile.shape:
                problems.append(f"{source.path}: has changed since it was measured; run the command again")
                break
            try:
                check_replaceable(out / tile.name)
                images.write_pixels(out / tile.name, tile.cut(image), overwrite=True, software=PREPARE_SOFTWARE)
                names.append(tile.name)
            except EsrganError as error:
                problems += error.problems
    except EsrganError as error:
        problems += error.problems
    except OSError as error:
        text = f"{source.path}: cannot be cut: {describe_error(error)}; check the file and the free disk space"
        problems.append(text)
    add_line(record, source.key, names)
    return problems
