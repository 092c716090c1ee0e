"""Generators in the formats of other programs: ONNX, programs of PyTorch, ncnn, and weights under other names."""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esrgan.errors import EsrganError, Problem, WeightsError
from esrgan.files import write_bytes
from esrgan.models import RRDBNet
from esrgan.text import describe_error, one_line
from esrgan.weight_formats import DIALECT_KEYS
from esrgan.weights import Architecture, GeneratorFile, save_file
from esrgan.weights.dialects import from_basicsr_names
from esrgan.weights.ncnn_writer import to_ncnn

# Greatest difference that is allowed, for results in [0, 1]; relative to the greatest value where that is above 1.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2}


def export_onnx(file: GeneratorFile, path: str | Path, *, half: bool = False) -> float:
    """Write an ONNX graph: ``low`` (B, C, H, W) in [0, 1] → ``high`` (B, C, scale·H, scale·W), for any B, H and W.

    Args:
        file: The generator.
        path: Where to.
        half: Weights, input and output in float16 instead of float32.

    Returns:
        The greatest difference between onnxruntime and PyTorch, on images of another size than it was made with.

    Raises:
        EsrganError: It is beyond ``TOLERANCE``, a weight is beyond float16, or the file cannot be written.
        ImportError: Without the packages of ``esrgan[export]``.
    """
    import onnxruntime

    path = Path(path)
    network, low, sizes = _prepare_trace(file, half)
    program = torch.onnx.export(
        network,
        (low,),
        dynamo=True,
        dynamic_shapes={"low": sizes},
        input_names=["low"],
        output_names=["high"],
        verbose=False,
    )
    assert program is not None  # noqa: S101  with dynamo it is one; for the type checker
    model = program.model_proto
    for value, names in ((model.graph.input[0], "low_{}"), (model.graph.output[0], "high_{}")):
        for axis, name in ((0, "batch"), (2, names.format("height")), (3, names.format("width"))):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = 0.0
    for image in _comparison_images(file, low.dtype):
        (high,) = session.run(None, {"low": image.numpy()})
        difference = max(difference, _check_difference(path, torch.from_numpy(high), network(image)))
    write_bytes(path, content)
    return difference


def export_program(
    file: GeneratorFile, path: str | Path, *, half: bool = False, device: torch.device | None = None
) -> float:
    """Write a program for PyTorch without this package: ``torch.export.load(path).module()(low)``.

    Given a device it is compiled for that: ``torch._inductor.aoti_load_package(path)(low)``, also from C++.

    Args:
        file: The generator.
        path: Where to, ``.pt2``.
        half: Weights, input and output in float16 instead of float32.
        device: Where the compiled program is to run; None leaves it uncompiled.

    Height and width have to be even and at least 4 for a ×2 network with pixel unshuffle, and multiples of four and at
    least 8 for ×1.

    Returns:
        The greatest difference from the generator, on images of other sizes than it was made with.

    Raises:
        EsrganError: It is beyond ``TOLERANCE``, a weight is beyond float16, or the file cannot be written or compiled.
    """
    path = Path(path)
    network, low, sizes = _prepare_trace(file, half)
    network, low = network.to(device or "cpu"), low.to(device or "cpu")
    program = torch.export.export(network, (low,), dynamic_shapes={"low": sizes})
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.pt2")  # PyTorch goes by the suffix
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if device is None:
            torch.export.save(program, temporary)
            run: Any = torch.export.load(temporary).module()
        else:
            torch._inductor.aoti_compile_and_package(program, package_path=str(temporary))
            run = torch._inductor.aoti_load_package(str(temporary))
        difference = max(
            _check_difference(path, run(image), network(image))
            for image in (image.to(low.device) for image in _comparison_images(file, low.dtype))
        )
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        raise EsrganError(f"{path}: cannot be made: {one_line(describe_error(error), 200)}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return difference


def export_ncnn(file: GeneratorFile, path: str | Path, *, half: bool = False) -> None:
    """Write an ncnn model: ``path`` is the ``.param``, the weights go into the ``.bin`` beside it.

    Its input blob is ``data`` in [0, 1], its output ``output``. Of a network with pixel unshuffle, height and width
    have to be multiples of the folding. An old pair is replaced only when both new files are whole.

    Args:
        file: The generator.
        path: Where to, ``.param``.
        half: Weights in float16; biases stay float32, as the format has it.

    Raises:
        EsrganError: The name does not end in .param, a weight is beyond float16, or the pair cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".param":
        raise EsrganError(Problem(str(path), "a name that ends in .param", path.suffix or "no suffix"))
    state = file.state
    if half:
        kernels = {name: value for name, value in state.items() if name.endswith(".weight")}
        state = state | _to_float16(kernels, file.path)
    param, weights = to_ncnn(state, file.architecture)
    contents = {path: param.encode(), path.with_suffix(".bin"): weights}
    for target in contents:
        if target.is_dir():
            raise EsrganError(Problem(str(target), "a file to write", "a folder", "choose another name"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".esrgan-", dir=path.parent) as folder:
            for target, content in contents.items():
                Path(folder, target.name).write_bytes(content)
            for target in contents:
                Path(folder, target.name).replace(target)
    except OSError as error:
        raise EsrganError(f"{path}: cannot be written: {error.strerror}") from error


def export_weights(file: GeneratorFile, path: str | Path, dialect: str = "basicsr", *, half: bool = False) -> None:
    """Write the weights for another program.

    Only the earlier framework's files tell their β (residual scaling); everybody else has the paper's 0.2 in the
    program. Another β becomes part of the weights, so that the network computes the same there, up to rounding.

    Args:
        file: The generator.
        path: ``.safetensors``, or any other suffix for PyTorch's format. Under our own names it is a model file of
            ours, which keeps stage and configuration, β excepted; under others it is the bare state dict that others
            expect.
        dialect: One of ``DIALECT_KEYS``.
        half: In float16.

    Raises:
        WeightsError: There are no such names, a weight is beyond float16, or the file cannot be written.
    """
    path = Path(path)
    if dialect not in DIALECT_KEYS:
        raise WeightsError(Problem("dialect", f"one of {', '.join(DIALECT_KEYS)}", dialect))
    if dialect != "earlier":
        file = _with_default_scaling(file)
    state = _to_float16(file.state, file.path) if half else file.state
    if dialect == "basicsr":
        save_file(path, file.to_dict() | {"params": state})
        return
    state = from_basicsr_names(state, dialect, file.architecture.residual_scaling)
    save_file(path, {"params": state} if path.suffix.lower() == ".safetensors" else state)


def _with_default_scaling(file: GeneratorFile) -> GeneratorFile:
    """Give the same function as a network of the paper's β.

    A dense block is x + β·f(x): f becomes k = β/0.2 times as large. An RRDB is x + β·g(x) where g, its dense blocks
    in sequence, has x in its sum, so all of g has to become k times as large. That is left to the last dense block:
    its f has k once more, and the rest, k − 1 times the block's own input, by the centres of its kernels.
    """
    architecture, usual = file.architecture, Architecture.residual_scaling
    k = architecture.residual_scaling / usual
    if k == 1:
        return file
    state, channels = dict(file.state), torch.arange(architecture.rrdb_channels)
    for i in range(architecture.num_basic_blocks):
        for j in range(1, architecture.num_dense_blocks + 1):
            is_last = j == architecture.num_dense_blocks
            conv = f"body.{i}.rdb{j}.conv{architecture.num_residual_blocks}"
            for name in (f"{conv}.weight", f"{conv}.bias"):
                state[name] = state[name] * (k * k if is_last else k)
            if is_last:
                state[f"{conv}.weight"][channels, channels, 1, 1] += (k - 1) / usual
    return replace(file, state=state, architecture=replace(architecture, residual_scaling=usual))


def _to_float16(state: dict[str, Tensor], place: Path) -> dict[str, Tensor]:
    """Give tensors in float16; refuse those that would become infinite."""
    halved = {name: value.half() for name, value in state.items()}
    for name, value in halved.items():
        if not value.isfinite().all():
            got = f"{float(state[name].abs().max()):.6g} in {name}"
            raise WeightsError(Problem(str(place), "weights that float16 holds", got, "export it without --half"))
    return halved


def _prepare_trace(file: GeneratorFile, half: bool) -> tuple[RRDBNet, Tensor, dict[int, Any]]:
    """Give the network, images to trace it with, and their axes that may have any size."""
    if half:
        _to_float16(file.state, file.path)  # says what float16 cannot hold, before the results are NaN
    network = file.build().requires_grad_(False)
    low = _random_image((2, file.architecture.img_channels, 24, 20))
    sizes: dict[int, Any] = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    return (network.half(), low.half(), sizes) if half else (network, low, sizes)


def _comparison_images(file: GeneratorFile, dtype: torch.dtype) -> list[Tensor]:
    """Make images to compare programs by; of whole foldings, as exported programs want them."""
    channels = file.architecture.img_channels
    return [_random_image(shape).to(dtype) for shape in ((1, channels, 16, 36), (3, channels, 8, 12))]


def _random_image(shape: tuple[int, ...]) -> Tensor:
    """Make values in [0, 1], the same each time."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _check_difference(path: Path, found: Tensor, expected: Tensor) -> float:
    difference = float((found.float() - expected.float()).abs().max())
    if not difference <= TOLERANCE[expected.dtype] * max(1.0, float(expected.abs().max())):  # NaN is none either
        raise EsrganError(f"{path}: not written, as its results would differ by {difference:.2g} from PyTorch's")
    return difference
