"""Export generators for other programs: as ONNX, PyTorch programs, ncnn models, or weights in other dialects."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from esrgan.console import log, progress
from esrgan.devices import exact_float32
from esrgan.errors import EsrganError, Problem, WeightsError
from esrgan.files import atomic_write, check_temporary_folder, write_bytes, write_error
from esrgan.models import Generator
from esrgan.text import describe_error, one_line
from esrgan.weight_formats import DIALECT_KEYS
from esrgan.weights import GeneratorFile, RRDBNetArchitecture, save_file
from esrgan.weights.dialects import from_basicsr_names
from esrgan.weights.ncnn_writer import to_ncnn

# The largest difference allowed for outputs in [0, 1]. For outputs above 1 it is relative to the largest value.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2}


@contextmanager
def _without_autocast() -> Iterator[None]:
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


@_without_autocast()
def export_onnx(file: GeneratorFile, path: str | Path, *, half: bool = False, overwrite: bool = True) -> float:
    """Write an ONNX graph: ``low`` (B, C, H, W) in [0, 1] → ``high`` (B, C, scale·H, scale·W), for any B, H and W.

    Args:
        file: The generator.
        path: The file to write.
        half: Use float16 instead of float32 for weights, input and output.
        overwrite: Replace an existing file. If false, one that another program creates meanwhile is kept too.

    Returns:
        The largest difference between the outputs of onnxruntime and PyTorch, for images of other sizes than the one
        used for tracing.

    Raises:
        EsrganError: If the difference exceeds ``TOLERANCE``, a weight exceeds the range of float16, the file cannot be
            written, or there is no folder for temporary files.
        ImportError: If the packages of ``esrgan[export]`` are not installed.
    """
    check_temporary_folder()
    import onnxruntime

    path = Path(path)
    network, low, sizes = _prepare_trace(file, half)
    progress(f"{path}: tracing the network")
    program = torch.onnx.export(
        network,
        (low,),
        dynamo=True,
        dynamic_shapes={"low": sizes},
        input_names=["low"],
        output_names=["high"],
        verbose=False,
    )
    assert program is not None  # noqa: S101  never None with dynamo=True; for the type checker
    model = program.model_proto
    for value, names in ((model.graph.input[0], "low_{}"), (model.graph.output[0], "high_{}")):
        for axis, name in ((0, "batch"), (2, names.format("height")), (3, names.format("width"))):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    content = model.SerializeToString()
    progress(f"{path}: comparing onnxruntime and PyTorch")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = 0.0
    for image in _comparison_images(file, low.dtype):
        (high,) = session.run(None, {"low": image.numpy()})
        difference = max(difference, _check_difference(path, torch.from_numpy(high), network(image)))
    write_bytes(path, content, overwrite=overwrite)
    _warn_of_lost_reduction(file, path)
    return difference


@_without_autocast()
def export_program(
    file: GeneratorFile,
    path: str | Path,
    *,
    half: bool = False,
    device: torch.device | None = None,
    overwrite: bool = True,
) -> float:
    """Write a program that PyTorch runs without this package: ``torch.export.load(path).module()(low)``.

    With a device it is compiled for that device: ``torch._inductor.aoti_load_package(path)(low)``, which also works
    from C++.

    For a network with pixel unshuffle, height and width must be multiples of its factor and at least twice that.

    Args:
        file: The generator.
        path: The ``.pt2`` file to write.
        half: Use float16 instead of float32 for weights, input and output.
        device: The device to compile the program for; None leaves it uncompiled.
        overwrite: Replace an existing file. If false, one that another program creates meanwhile is kept too.

    Returns:
        The largest difference from the generator's output, for images of other sizes than the one used for tracing.

    Raises:
        EsrganError: If the difference exceeds ``TOLERANCE``, a weight exceeds the range of float16, the file cannot be
            compiled or written, or there is no folder for temporary files.
    """
    check_temporary_folder()
    path = Path(path)
    network, low, sizes = _prepare_trace(file, half)
    network, low = network.to(device or "cpu"), low.to(device or "cpu")
    progress(f"{path}: tracing the network")
    program = torch.export.export(network, (low,), dynamic_shapes={"low": sizes})
    target = io.BytesIO()  # PyTorch's writer ends the process if it cannot write to a file
    try:
        if device is None:
            torch.export.save(program, target)
        else:
            progress(f"{path}: compiling for {device}, which can take minutes")
            torch._inductor.aoti_compile_and_package(program, package_path=target)
        target.seek(0)
        progress(f"{path}: comparing the program and the network")
        run: Any = torch._inductor.aoti_load_package(target) if device else torch.export.load(target).module()
        images = [image.to(low.device) for image in _comparison_images(file, low.dtype)]
        with exact_float32(low.device):
            difference = max(_check_difference(path, run(image), network(image)) for image in images)
    except (OSError, RuntimeError) as error:
        reason = one_line(describe_error(error), 200)
        remedy = "check the folder and its free disk space, or choose another format"
        raise EsrganError(f"{path}: cannot be exported: {reason}; {remedy}") from error
    write_bytes(path, target.getvalue(), overwrite=overwrite)
    _warn_of_lost_reduction(file, path)
    return difference


def export_ncnn(file: GeneratorFile, path: str | Path, *, half: bool = False, overwrite: bool = True) -> None:
    """Write an ncnn model: the ``.param`` at ``path``, and the weights in a ``.bin`` of the same name.

    The input blob is ``data`` in [0, 1], the output blob ``output``. For a network with pixel unshuffle, height and
    width must be multiples of its factor. An existing pair is replaced only once both new files are complete.

    Args:
        file: The generator.
        path: The ``.param`` file to write.
        half: Use float16 for the weights; the format keeps biases in float32.
        overwrite: Replace an existing file. If false, one that another program creates meanwhile is kept too.

    Raises:
        EsrganError: If the name does not end in .param, a weight exceeds the range of float16, or the pair cannot be
            written.
    """
    path = Path(path)
    if path.suffix.lower() != ".param":
        raise EsrganError(Problem(str(path), "a name that ends in .param", path.suffix or "no suffix"))
    state = file.state
    if half:
        kernels = {name: value for name, value in state.items() if name.endswith(".weight")}
        state = state | _to_float16(kernels, file.path)
    param, weights = to_ncnn(state, file.architecture, file.outscale)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_write(path, overwrite=overwrite) as param_file,
            atomic_write(path.with_suffix(".bin"), overwrite=overwrite) as weights_file,
        ):
            param_file.write(param.encode())
            weights_file.write(weights)
    except OSError as error:
        raise write_error(path, error) from error


def export_weights(
    file: GeneratorFile, path: str | Path, dialect: str = "basicsr", *, half: bool = False, overwrite: bool = True
) -> None:
    """Write the weights for another program.

    Only files of the earlier framework store β (residual scaling); all other programs assume the paper's 0.2. Any other
    β is folded into the weights, so that the network computes the same function there, up to rounding.

    Args:
        file: The generator.
        path: The file to write: ``.safetensors``, or any other suffix for PyTorch's format. In the dialect "basicsr" it
            is a model file with stage and configuration (except β), in the others a bare state dict, as other programs
            expect.
        dialect: One of ``DIALECT_KEYS``; SRVGGNetCompact has only the names of "basicsr".
        half: Use float16.
        overwrite: Replace an existing file. If false, one that another program creates meanwhile is kept too.

    Raises:
        WeightsError: If the dialect is unknown or has no names for the network, a weight exceeds the range of float16,
            or the file cannot be written.
    """
    path = Path(path)
    if dialect not in DIALECT_KEYS:
        raise WeightsError(Problem("dialect", f"one of {', '.join(DIALECT_KEYS)}", dialect))
    architecture = file.architecture
    if not isinstance(architecture, RRDBNetArchitecture) and dialect != "basicsr":
        raise WeightsError(Problem("names of tensors", f"basicsr, the only ones for {architecture}", dialect))
    if dialect != "earlier":
        file = _with_default_scaling(file)
    state = _to_float16(file.state, file.path) if half else file.state
    if dialect == "basicsr":
        save_file(path, file.to_dict() | {"params": state}, overwrite=overwrite)
        warn_of_ignored_layers(file, path)
        return
    beta = architecture.residual_scaling if isinstance(architecture, RRDBNetArchitecture) else 1.0
    state = from_basicsr_names(state, dialect, beta)
    save_file(path, {"params": state} if path.suffix.lower() == ".safetensors" else state, overwrite=overwrite)
    _warn_of_lost_reduction(file, path)
    if dialect != "esrgan-old":
        warn_of_ignored_layers(file, path)


def warn_of_ignored_layers(file: GeneratorFile, path: Path) -> None:
    """Warn that other programs ignore layers of ESRGAN+ in a written file, because they know only its old names."""
    if isinstance(file.architecture, RRDBNetArchitecture) and file.architecture.plus:
        remedy = "for those programs use `esrgan export` with --names esrgan-old"
        log.warning("%s: chaiNNer and ComfyUI ignore the 1×1 convolutions of ESRGAN+ in this file; %s", path, remedy)


def _warn_of_lost_reduction(file: GeneratorFile, path: Path) -> None:
    """Warn that a written file puts out the full size, where the generator's output is to be reduced."""
    if file.outscale:
        scale = file.architecture.scale_factor
        kept = ".param, or to .pth or .safetensors with BasicSR names, which keep that"
        remedy = f"resize it by {file.outscale / scale:g}, or export to {kept}"
        log.warning("%s: its output is ×%d, not reduced to ×%g; %s", path, scale, file.outscale, remedy)


def _with_default_scaling(file: GeneratorFile) -> GeneratorFile:
    """Return a generator with the paper's β that computes the same function.

    A dense block is x + β·f(x), so f is scaled by k = β/0.2. An RRDB is x + β·g(x), where g is its sequence of dense
    blocks, so g must be scaled by k too. The last dense block does this: its f is scaled by k once more, and the
    centres of the kernels of its last convolution add the missing (k − 1) times the dense block's own input x.
    """
    architecture, default = file.architecture, RRDBNetArchitecture.residual_scaling
    if not isinstance(architecture, RRDBNetArchitecture) or architecture.residual_scaling == default:
        return file
    k = architecture.residual_scaling / default
    state, channels = dict(file.state), torch.arange(architecture.rrdb_channels, device="cpu")
    for i in range(architecture.num_basic_blocks):
        for j in range(1, architecture.num_dense_blocks + 1):
            is_last = j == architecture.num_dense_blocks
            conv = f"body.{i}.rdb{j}.conv{architecture.num_residual_blocks}"
            for name in (f"{conv}.weight", f"{conv}.bias"):
                state[name] = state[name] * (k * k if is_last else k)
            if is_last:
                state[f"{conv}.weight"][channels, channels, 1, 1] += (k - 1) / default
    return replace(file, state=state, architecture=replace(architecture, residual_scaling=default))


def _to_float16(state: dict[str, Tensor], place: Path) -> dict[str, Tensor]:
    """Convert tensors to float16.

    Raises:
        WeightsError: If a value would become infinite.
    """
    halved = {name: value.half() for name, value in state.items()}
    for name, value in halved.items():
        if not value.isfinite().all():
            got = f"{float(state[name].abs().max()):.6g} in {name}"
            raise WeightsError(Problem(str(place), "weights in the range of float16", got, "export without --half"))
    return halved


def _prepare_trace(file: GeneratorFile, half: bool) -> tuple[Generator, Tensor, dict[int, Any]]:
    """Return the network, an input to trace it with, and the axes of the input that may have any size."""
    if half:
        _to_float16(file.state, file.path)  # only for its error, before outputs become NaN
    network = file.build().requires_grad_(False)
    low = _random_image((2, file.architecture.in_channels, 24, 20))
    sizes: dict[int, Any] = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    return (network.half(), low.half(), sizes) if half else (network, low, sizes)


def _comparison_images(file: GeneratorFile, dtype: torch.dtype) -> list[Tensor]:
    """Return test images whose sizes are multiples of every pixel-unshuffle factor, as exported programs require."""
    channels = file.architecture.in_channels
    return [_random_image(shape).to(dtype) for shape in ((1, channels, 16, 36), (3, channels, 8, 12))]


def _random_image(shape: tuple[int, ...]) -> Tensor:
    """Return values in [0, 1], the same on every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")


def _check_difference(path: Path, found: Tensor, expected: Tensor) -> float:
    difference = float((found.float() - expected.float()).abs().max())
    if not difference <= TOLERANCE[expected.dtype] * max(1.0, float(expected.abs().max())):  # also true for NaN
        remedy = "export without --half, or to another format"
        raise EsrganError(
            f"{path}: not written, because its outputs differ from PyTorch's by up to {difference:.2g}; {remedy}"
        )
    return difference
