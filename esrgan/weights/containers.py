"""Read the container formats of weight files, detected by content, without executing anything stored in them."""

from __future__ import annotations

import codecs
import json
import pickle
import re
import shlex
import tarfile
import urllib.parse
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import Tensor

from esrgan.console import log
from esrgan.errors import WeightsError
from esrgan.paths import describe_path, suggest_path
from esrgan.pretrained import MODELS
from esrgan.text import did_you_mean, one_line
from esrgan.weight_formats import WEIGHT_SUFFIXES
from esrgan.weights import ncnn
from esrgan.weights.architecture import MAX_INFLATION
from esrgan.weights.dialects import select_generators
from esrgan.weights.networks import AVERAGED, is_averaged, log_raw, prefer_averaged
from esrgan.weights.unsupported import describe_sets, guess_contents

# Keys under which trainers store a generator's weights, the preferred first: averaged weights before raw ones.
STATE_DICT_KEYS = (
    *("params_ema", "params", "g_model_state_dict", "model_state_dict", "state_dict"),
    *("generator", "netG", "net_g", "model"),  # other programs' keys come last
)
# What torch.compile, FSDP and activation checkpointing add to the names of the modules that they wrap.
_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Averages whose weights are not used; exp_avg is Adam's.
_OTHER_AVERAGES = re.compile(r"(?i)(?<![a-z])(?<!exp_)(?:emas|swa|avg|averaged?|polyak|running|shadow)(?![a-z])")
MAX_DEPTH = 6  # of dictionaries in one another
_Rank = tuple[tuple[bool, int], ...]  # one element for each key of a path, and one for the prefix

ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
ZIP_FOLDER = 0x10  # the attribute of a folder; PyTorch returns uninitialised memory as the content of one

# The first bytes of files that are not weight files, what such a file is, and what to do.
UNSUPPORTED_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull` to fetch the file"),
    (b"<", "a web page", "download it again"),
    (b"{", "JSON text", "pass the file that contains the weights"),
    (b"\x89PNG", "a PNG image", "pass the model first, then the images"),
    (b"\xff\xd8\xff", "a JPEG image", "pass the model first, then the images"),
    (b"GIF8", "a GIF image", "pass the model first, then the images"),
    (b"BM", "a BMP image", "pass the model first, then the images"),
    (b"II*\x00", "a TIFF image", "pass the model first, then the images"),
    (b"RIFF", "a WebP image or an audio file", "pass the model first, then the images"),
    (b"\x89HDF", "an HDF5 file, as written by Keras", "save the model with PyTorch or as safetensors"),
    (b"GGUF", "a GGUF file", "use a PyTorch or safetensors file of the model"),
    (b"\x93NUMPY", "a NumPy array", "save a state dict with PyTorch or as safetensors"),
    (b"\x1f\x8b", "a gzip archive", "unpack it and pass the file inside"),
    (b"\xfd7zXZ", "an xz archive", "unpack it and pass the file inside"),
    (b"BZh", "a bzip2 archive", "unpack it and pass the file inside"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it and pass the file inside"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it and pass the file inside"),
    (b"Rar!", "a RAR archive", "unpack it and pass the file inside"),
    (b"\xdd\x85\x76\x00", "a binary ncnn .param, which has no layer names", "use the text .param"),
    (b"%PDF", "a PDF document", "pass the file that contains the weights"),
)
# The first bytes of dictionaries pickled by protocol 0 or 1, and of PyTorch's format before 1.6 by these protocols.
EARLY_PICKLES = (
    b"(dp",
    b"(lp",
    b"}q",
    b"ccollections\n",
    b"L119547037146038801333356",
    b"\x8a\x0a\x6c\xfc\x9c\x46\xf9",
)
_SAVE_AGAIN = "save it again by torch.save without pickle_protocol"
FRAME_OPERAND = "Unsupported operand 149"  # with which pickles of protocol 4 begin, in PyTorch's error
MAX_SAFETENSORS_HEADER = 100_000_000  # bytes; the format's limit on its JSON header, whose length comes first
_GET_ANOTHER = "download it again, or use an earlier checkpoint"
ONNX_SIGNATURE = re.compile(rb"\x08[\x01-\x20](\x12|:|B)")  # field ir_version, then producer, graph or opset


def extract_state_dict(content: dict[str, Any], place: str) -> dict[str, Tensor]:
    """Return the state dict in the content of a weight file.

    Args:
        content: A state dict, or a dictionary that has one under any key, which may be nested. Generators come before
            other networks, averaged weights before raw ones, and then the order of ``STATE_DICT_KEYS`` applies.
        place: Name of the file for error messages.

    Returns:
        Tensors by name, without the ``module.`` that parallel wrappers put before each name.

    Raises:
        WeightsError: If the content has no state dict, or several generators none of which comes first.
    """
    meta = content.get("meta")
    if isinstance(meta, dict) and "mmengine_version" in meta:  # MMEngine swaps the averaged weights into state_dict
        content = {key: value for key, value in content.items() if key != "ema_state_dict"}
    network = _find_generator(content, place) or _find_network(content)
    state = _select_tensors(network)
    if not state:
        raise WeightsError(f"{place}: expected the weights of a network, got {guess_contents(network)}")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


class _Found(NamedTuple):
    """A generator: the dictionary that contains its tensors, and their prefix with that dictionary's path."""

    rank: _Rank
    path: str
    content: dict[str, Any]
    prefix: str
    layers: dict[str, Tensor]


def _find_generator(content: dict[str, Any], place: str) -> dict[str, Any] | None:
    """Return the dictionary with the tensors of the generator to use, or None if there is no generator."""
    found: list[_Found] = []
    waiting: list[tuple[_Rank, str, dict[str, Any]]] = [((), "", content)]
    seen = set()
    unused = []
    for rank, path, value in waiting:  # which grows
        if id(value) in seen or len(rank) > MAX_DEPTH:  # a dictionary may contain itself
            continue
        seen.add(id(value))
        for prefix, layers in select_generators(_select_tensors(value)).items():
            full = f"{path}.{prefix}".lstrip(".")
            keys = (*rank, (AVERAGED.search(prefix) is None, -1))
            if not is_averaged(full):  # also raw ones in a dictionary of averaged ones (online_model)
                keys = tuple((True, position) for _, position in keys)
            found.append(_Found(keys, path, value, full, layers))
        unused += [f"{path}.{key}".lstrip(".") for key, each in value.items() if _is_list_of_weights(each)]
        inner = ((str(key), each) for key, each in value.items() if isinstance(each, dict))
        waiting += [((*rank, _rank(key)), f"{path}.{key}".lstrip("."), each) for key, each in inner]
    first = min((each.rank for each in found if _is_raw(each.rank)), default=None)
    # The key decides on the network, before its averaged weights are preferred.
    networks = [each for each in found if each.rank == first or not _is_raw(each.rank)]
    others = [each.prefix for each in found if each.rank != first and _is_raw(each.rank)]
    candidates = [(each.prefix, each.layers) for each in networks]
    preferred = [networks[position] for position in prefer_averaged(candidates, others)]
    best = min((each.rank for each in preferred), default=())
    chosen = {each.path: each.content for each in preferred if each.rank == best}
    if len(chosen) > 1:
        raise WeightsError(f"{place}: expected one generator, got {describe_sets(chosen)}")
    ignored = [each.prefix.removesuffix(".") for each in networks if each.path not in chosen]
    if ignored and _is_raw(best):  # the averaged ones do not fit
        log_raw(place, ignored)
    unused += [prefix.removesuffix(".") for prefix in others if not AVERAGED.search(prefix)]  # but no online_model
    unused = [path for path in unused if AVERAGED.search(path) or _OTHER_AVERAGES.search(path)]
    if unused and chosen and _is_raw(best):
        listed = one_line(", ".join(unused[:5]))
        log.warning("%s: ignoring the averaged weights %s; to use them, save them under params_ema", place, listed)
    return next(iter(chosen.values()), None)


def _is_list_of_weights(value: Any) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    tensors = [tensor for each in value for tensor in (each.values() if isinstance(each, dict) else [each])]
    return any(isinstance(tensor, Tensor) and tensor.ndim > 1 for tensor in tensors)


def _is_raw(rank: _Rank) -> bool:
    return all(is_raw for is_raw, _ in rank)


def _rank(key: str) -> tuple[bool, int]:
    """Return a value by which keys of a dictionary are sorted, the preferred first."""
    position = STATE_DICT_KEYS.index(key) if key in STATE_DICT_KEYS else len(STATE_DICT_KEYS)
    return AVERAGED.search(key) is None, position


def _find_network(content: dict[str, Any]) -> dict[str, Any]:
    """Return the dictionary with the tensors of a network that is no generator, else the last one searched."""
    for _ in range(MAX_DEPTH):
        known = [content[key] for key in STATE_DICT_KEYS if isinstance(content.get(key), dict) and content[key]]
        others = [value for value in content.values() if isinstance(value, dict) and _select_tensors(value)]
        if known:
            content = known[0]
        elif len(others) == 1 and not _select_tensors(content):
            content = others[0]
    return content


def _select_tensors(content: dict[str, Any]) -> dict[str, Tensor]:
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    unwrapped = {_WRAPPERS.sub("", name): value for name, value in tensors.items()}
    return unwrapped if len(unwrapped) == len(tensors) else tensors


def load_file(path: str | Path) -> dict[str, Any]:
    """Read the dictionary in a weight file onto the CPU, as tensors and plain values only.

    The metadata of a safetensors file is merged in, parsed as JSON where it is JSON, but never taken for weights.

    Args:
        path: The file, or the common name of an ncnn pair without its suffix.

    Returns:
        The content of the file: a state dict, or a dictionary that contains one.

    Raises:
        WeightsError: If the file is missing, a folder, empty, truncated, not a weight file, or contains code; the
            message is one line.
    """
    path = Path(path)
    if pair := ncnn.find_pair(path):
        return ncnn.read_pair(*pair)
    if (kind := describe_path(path)) in ("a named pipe", "a socket", "a device"):  # could block for ever
        raise WeightsError(f"{path}: expected a weight file, got {kind}; save its content as a file first")
    try:
        with path.open("rb") as file:
            head = file.read(512)
        size = path.stat().st_size
    except (FileNotFoundError, ValueError) as error:  # ValueError: no file can have this name
        is_name = not path.suffix and path.parent == Path()
        other = " or model name (`esrgan models` lists the names)" if is_name else ""
        if address := re.fullmatch(r"https?:/+(.+)", str(path)):
            remedy = _suggest_reference(address[1]) or "download it, and pass the file"
            raise WeightsError(f"{path}: expected a weight file, got a web address; {remedy}") from error
        remedy = suggest_path(path, did_you_mean(path.stem, MODELS, "") if path.parent == Path() else "")
        raise WeightsError(f"{path}: no such file{other}{f'; {remedy}' if remedy else ''}") from error
    except OSError as error:
        if describe_path(path) == "a folder":  # Windows raises PermissionError
            raise WeightsError(f"{path}: expected a weight file, got a folder; pass the file inside it") from error
        raise WeightsError(f"{path}: cannot be read: {error.strerror}; check the file and its permissions") from error
    if not head.strip():
        raise WeightsError(f"{path}: expected a weight file, got an empty file; download it again")
    content = _load(path, head, size)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a dictionary of weights, got {type(content).__name__}")
    return content


def _suggest_reference(address: str) -> str | None:
    """Return the advice to pass the file at a web address of the Hugging Face Hub as a reference, if it can be read."""
    found = re.fullmatch(r"huggingface\.co/([^/]+/[^/]+)/(?:resolve|blob)/([^/?#]+)/([^?#]+)(?:[?#].*)?", address)
    if found is None or not (filename := urllib.parse.unquote(found[3])).lower().endswith(WEIGHT_SUFFIXES):
        return None
    return f"pass {shlex.quote(f'hf:{found[1]}@{found[2]}/{filename}')}"


def _load(path: Path, head: bytes, size: int) -> Any:
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_SAFETENSORS_HEADER:
        return _load_safetensors(path)
    if head.startswith(ZIP_SIGNATURES):
        _check_zip(path, size)
        return _load_torch(path)
    if head.startswith(b"\x80") and head[1:2] <= b"\x05":  # a pickle, the format of PyTorch before 1.6
        return _load_torch(path)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if re.match(rb"(<\?xml[^>]*>\s*)?<net ", text):
        raise WeightsError(
            f"{path}: expected a weight file, got an OpenVINO model; use the PyTorch file it was made from"
        )
    for start, kind, remedy in UNSUPPORTED_SIGNATURES:
        if text.startswith(start):
            raise WeightsError(f"{path}: expected a weight file, got {kind}; {remedy}")
    if ONNX_SIGNATURE.match(head):
        kind = "a Core ML model" if path.suffix == ".mlmodel" else "an ONNX graph"
        raise WeightsError(f"{path}: expected a weight file, got {kind}; use the PyTorch file it was made from")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)  # its error message states what is wrong
    if path.suffix == ".bin" and head[:4] in ncnn.WEIGHT_FLAGS:
        raise WeightsError(f"{path}: its {path.with_suffix('.param').name} is missing; put it in the same folder")
    if not head.strip(b"\0"):
        raise WeightsError(
            f"{path}: expected a weight file, got only zeros, perhaps a broken download; download it again"
        )
    if head[257:262] == b"ustar" or tarfile.is_tarfile(path):
        raise WeightsError(f"{path}: expected a weight file, got a tar archive; unpack it and pass the file inside")
    if head.startswith(EARLY_PICKLES):
        raise WeightsError(f"{path}: saved with pickle protocol 0 or 1, which PyTorch does not read; {_SAVE_AGAIN}")
    kind = "text" if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head) else "an unknown format"
    raise WeightsError(f"{path}: expected a weight file (PyTorch, safetensors or ncnn), got {kind}; download it again")


def _check_zip(path: Path, size: int) -> None:
    """Refuse a zip archive that is not a state dict or would unpack to far more than its size.

    This happens before PyTorch opens the archive, which would read a TorchScript program or fill the memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises nearly any exception for damaged files
        raise WeightsError(f"{path}: damaged or truncated: {_error_text(error)}; download it again") from error
    names = [entry.filename for entry in entries]
    if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
        raise WeightsError(f"{path}: expected only weights, got a TorchScript program; save its state_dict() instead")
    if any(name.endswith("/archive_format") for name in names):  # torch.export
        got = "an exported program (.pt2); use the PyTorch file it was made from"
        raise WeightsError(f"{path}: expected a weight file, got {got}")
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        first = one_line(", ".join(names[:3]) or "nothing")
        raise WeightsError(
            f"{path}: expected a weight file, got a zip archive that contains {first}; "
            "unpack it and pass the weight file inside"
        )
    inside = sum(entry.file_size for entry in entries)
    if inside > MAX_INFLATION * size:
        raise WeightsError(
            f"{path}: not opened: {size:,} bytes would unpack to {inside:,}, and weights never compress so well; "
            "download it again from a source that you trust"
        )
    if folders := [entry.filename for entry in entries if entry.external_attr & ZIP_FOLDER and not entry.is_dir()]:
        raise WeightsError(f"{path}: damaged: {one_line(folders[0])} is marked as a folder; {_GET_ANOTHER}")
    _verify_checksums(path)


def _verify_checksums(path: Path) -> None:
    """Refuse an archive with changed bytes, which PyTorch would take for weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.CRC:  # PyTorch can leave out checksums
                    with archive.open(entry) as member:
                        while member.read(1 << 20):
                            pass
    except Exception as error:  # zipfile raises nearly any exception for damaged files
        raise WeightsError(f"{path}: damaged: {_error_text(error)}; {_GET_ANOTHER}") from error


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            # Copies, because the tensors map the file, which Windows does not replace while it is mapped.
            state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata = (file.metadata() or {}).items()  # of any kind, but never weights
            return {"params": state} | {
                key: _parse_json(value) for key, value in metadata if key not in STATE_DICT_KEYS
            }
    except Exception as error:  # safetensors raises several exceptions for damaged files
        message = f"{path}: not a complete safetensors file: {_error_text(error)}; download it again"
        raise WeightsError(message) from error


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _load_torch(path: Path) -> Any:
    try:
        # With a file name PyTorch would judge by its suffix. Its warnings are left to the program: Python cannot
        # ignore them in only one thread.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found and found[1] == "torch.storage._load_from_bytes":
            reason = "saved by pickle.dump, which PyTorch reads only by running what is in the file"
            raise WeightsError(f"{path}: {reason}; {_SAVE_AGAIN}") from error
        if found or (zipfile.is_zipfile(path) and FRAME_OPERAND not in str(error)):
            objects = f"Python objects ({one_line(found[1])})" if found else "Python objects"
            reason = f"not opened: it contains {objects} as well as weights, and these could run code"
            raise WeightsError(f"{path}: {reason}; save only the state_dict") from error
        if FRAME_OPERAND in str(error):
            reason = "saved with pickle protocol 4 or later, which PyTorch reads only by running what is in the file"
            raise WeightsError(f"{path}: {reason}; {_SAVE_AGAIN}") from error
        raise WeightsError(f"{path}: not a PyTorch weight file; download it again") from error
    except Exception as error:  # PyTorch's unpickler raises nearly any exception for damaged files
        raise WeightsError(f"{path}: damaged or truncated: {_error_text(error)}; download it again") from error


def _error_text(error: Exception) -> str:
    return one_line(str(error) or type(error).__name__, 120)
