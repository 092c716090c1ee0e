"""What a weight file holds, told by its content and not by its name. Nothing read from one is ever executed."""

from __future__ import annotations

import json
import pickle
import re
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from esrgan.errors import WeightsError
from esrgan.text import one_line
from esrgan.weights import ncnn
from esrgan.weights.unsupported import guess_contents

# Where trainers put a generator's weights, the best first: averaged weights before raw ones.
KNOWN_KEYS = ("params_ema", "params", "g_model_state_dict", "model_state_dict", "state_dict")
STATE_DICT_KEYS = (*KNOWN_KEYS, "generator", "netG", "net_g", "model")  # of others; after those that are known

ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
MAX_INFLATION = 10  # times the file's size; weights hardly compress, and PyTorch does not try

# How files that are none begin, what they are, and what to do.
UNSUPPORTED_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer in its place", "fetch the file by `git lfs pull`"),
    (b"<", "a web page saved under this name", "download it again"),
    (b"{", "JSON text", "name the file that has the weights"),
    (b"\x89PNG", "a PNG image", "name a model first, images after it"),
    (b"\xff\xd8\xff", "a JPEG image", "name a model first, images after it"),
    (b"GIF8", "a GIF image", "name a model first, images after it"),
    (b"BM", "a BMP image", "name a model first, images after it"),
    (b"II*\x00", "a TIFF image", "name a model first, images after it"),
    (b"RIFF", "a WebP image or a sound", "name a model first, images after it"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it", "export the model by PyTorch or as safetensors"),
    (b"GGUF", "a GGUF file", "use the model as PyTorch or safetensors file"),
    (b"\x93NUMPY", "a NumPy array", "save a state dict by PyTorch or as safetensors"),
    (b"\x1f\x8b", "a gzip archive", "unpack it and name the file in it"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it and name the file in it"),
    (b"Rar!", "a RAR archive", "unpack it and name the file in it"),
    (b"\xdd\x85\x76\x00", "a binary ncnn .param, which has no names", "use the .param that is text"),
    (b"%PDF", "a PDF document", "name the file that has the weights"),
)
MAX_SAFETENSORS_HEADER = 100_000_000  # bytes, the most that the format allows; its length stands before the JSON text
ONNX_SIGNATURE = re.compile(rb"\x08[\x01-\x20](\x12|:|B)")  # field ir_version, then producer, graph or opset


def extract_state_dict(content: dict[str, Any], place: str) -> dict[str, Tensor]:
    """Take the state dict out of what a file holds.

    Args:
        content: A bare state dict, or one in any of ``STATE_DICT_KEYS``, or such a one in another.
        place: The file, for messages.

    Returns:
        Tensors by name, without the ``module.`` that parallel wrappers put before names.

    Raises:
        WeightsError: If there is no state dict.
    """
    for _ in range(3):  # deep enough for all that trainers write, and an end to a dictionary that holds itself
        inner = next((content[key] for key in STATE_DICT_KEYS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise WeightsError(f"{place}: expected the weights of a network, got {guess_contents(content)}")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def load_file(path: str | Path) -> dict[str, Any]:
    """Read the dictionary in a weight file onto the CPU, as tensors and plain values only.

    The metadata of a safetensors file is merged in, read as JSON where it is JSON, but never taken for weights.

    Raises:
        WeightsError: In one line: not there, a folder, empty, truncated, not a weight file, or one with code in it.
    """
    path = Path(path)
    if pair := ncnn.find_pair(path):
        return {"params": ncnn.read_pair(*pair)}
    try:
        with path.open("rb") as file:
            head = file.read(512)
        size = path.stat().st_size
    except (FileNotFoundError, ValueError) as error:  # ValueError: a name that no file can have
        is_name = not path.suffix and path.parent == Path()
        other = ", nor a model of this name (`esrgan models` lists them)" if is_name else ""
        raise WeightsError(f"{path}: there is no such file{other}") from error
    except IsADirectoryError as error:
        raise WeightsError(f"{path}: expected a weight file, got a folder; name the file in it") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    if not head.strip():
        raise WeightsError(f"{path}: expected a weight file, got an empty one; download it again")
    content = _load(path, head, size)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a dictionary of weights, got a {type(content).__name__}")
    return content


def _load(path: Path, head: bytes, size: int) -> Any:
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_SAFETENSORS_HEADER:
        return _load_safetensors(path)
    if head.startswith(ZIP_SIGNATURES):
        _check_zip(path, size)
        return _load_torch(path)
    if head.startswith(b"\x80") and head[1:2] <= b"\x05":  # a pickle, as PyTorch wrote them before 1.6
        return _load_torch(path)
    for start, kind, remedy in UNSUPPORTED_SIGNATURES:
        if head.lstrip().startswith(start):
            raise WeightsError(f"{path}: expected a weight file, got {kind}; {remedy}")
    if ONNX_SIGNATURE.match(head):
        raise WeightsError(f"{path}: expected a weight file, got an ONNX graph; use the PyTorch file it was made from")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)  # whose message says what is wrong
    if path.suffix == ".bin" and head[:4] in ncnn.WEIGHT_FLAGS:
        raise WeightsError(f"{path}: expected its text {path.with_suffix('.param').name} beside it; put it there")
    if not head.strip(b"\0"):
        raise WeightsError(
            f"{path}: expected a weight file, got zeros alone, as of a broken download; download it again"
        )
    if head[257:262] == b"ustar" or tarfile.is_tarfile(path):
        raise WeightsError(f"{path}: expected a weight file, got a tar archive; unpack it and name the file in it")
    kind = "a text" if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head) else "bytes of no known kind"
    raise WeightsError(f"{path}: expected a weight file (PyTorch, safetensors or ncnn), got {kind}; download it again")


def _check_zip(path: Path, size: int) -> None:
    """Look into a zip archive before PyTorch does: is it a state dict, and not larger inside than any memory?"""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # damaged input: zipfile raises nearly anything
        raise WeightsError(f"{path}: damaged or truncated: {_error_text(error)}; download it again") from error
    names = [entry.filename for entry in entries]
    if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
        raise WeightsError(f"{path}: expected weights alone, got a TorchScript program; save its state_dict() instead")
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        first = one_line(", ".join(names[:3]) or "nothing")
        raise WeightsError(
            f"{path}: expected a weight file, got a zip archive of other things ({first}); "
            "unpack it and name the weight file in it"
        )
    inside = sum(entry.file_size for entry in entries)
    if inside > MAX_INFLATION * size:
        raise WeightsError(f"{path}: {size:,} bytes would become {inside:,}: no weights compress so; not opened")


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = (file.metadata() or {}).items()  # anything; the weights are in the tensors alone
            return {"params": state} | {
                key: _parse_json(value) for key, value in metadata if key not in STATE_DICT_KEYS
            }
    except Exception as error:  # damaged input
        raise WeightsError(f"{path}: not a whole safetensors file: {_error_text(error)}; download it again") from error


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _load_torch(path: Path) -> Any:
    try:
        # Given a name, torch would go by its suffix. Its warnings are of what is refused in a line of our own.
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found or zipfile.is_zipfile(path):
            objects = f"Python objects ({one_line(found[1])})" if found else "Python objects"
            reason = f"it holds {objects} besides weights, which could run code, and is not opened"
            raise WeightsError(f"{path}: {reason}; save its state_dict alone") from error
        raise WeightsError(f"{path}: not a PyTorch weight file; download it again") from error
    except Exception as error:  # damaged input: torch raises nearly anything from within its unpickler
        raise WeightsError(f"{path}: damaged or truncated: {_error_text(error)}; download it again") from error


def _error_text(error: Exception) -> str:
    return one_line(str(error) or type(error).__name__, 120)
