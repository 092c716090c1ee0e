"""Run a generator on a device, on images with any number of channels."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from esrgan.console import log
from esrgan.devices import explain_lack_of_memory
from esrgan.errors import WeightsError
from esrgan.images.samples import LUMA_WEIGHTS
from esrgan.inference.tiling import Finish, Part, unfinished, upscale_tiled
from esrgan.inference.winograd import transform_kernels
from esrgan.models import Generator, RRDBNet, SRVGGNetCompact
from esrgan.models.rrdbnet import RRDB, ResidualDenseBlock
from esrgan.weights.architecture import check_complete, infer_architecture, make_empty

# What large images are computed from, besides the weights; see ``check_unchanged``.
_COMPUTATION = ("__call__", "forward", "trunk", "upsampling_layers", "unshuffle", "_run_trunk")
_COMPUTED = re.compile(r"(body|conv_first|conv_body|conv_up\d|conv_hr|conv_last)(\.|$)")
_LAYERS = (nn.Conv2d, nn.PReLU, nn.ReLU, nn.LeakyReLU, nn.Sequential, RRDB, ResidualDenseBlock)


class Network:
    """A generator that is ready to compute.

    Args:
        generator: The generator; it is copied, and converted to float32.
        device: The device to compute on.
        dtype: Precision of its trunk, which is most of the work; bfloat16 is also that of ``upsampling_layers``.
            Everything else is computed in float32, because rounding errors are most visible there.
        winograd: Whether to compute by Winograd's algorithm, in float32 on the CPU.
    """

    def __init__(self, generator: Generator, device: torch.device, dtype: torch.dtype, *, winograd: bool) -> None:
        generator = copy.deepcopy(generator).float().eval().requires_grad_(False)
        with explain_lack_of_memory(device, "the network"):
            self.generator: Generator = generator.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.fast = self.generator if dtype == torch.float32 else copy.deepcopy(self.generator)
            for layer in self.fast.trunk + self.fast.upsampling_layers * (dtype == torch.bfloat16):
                layer.to(dtype)
        self.kernels = transform_kernels(generator) if winograd else None
        self.has_overflowed = False

    @property
    def is_colouriser(self) -> bool:
        """Whether the network makes colour images of grey ones."""
        return self.generator.in_channels == 1 and self.generator.out_channels == 3

    @property
    def work_per_pixel(self) -> int:
        """The number of weights, by which the work of two networks is compared."""
        return sum(weight.numel() for weight in self.generator.parameters()) // self.generator.unshuffle_factor**2

    def run(self, low: Tensor, peak: float, finish: Finish = unfinished) -> Iterator[Part]:
        """Upscale (B, C, H, W) in [0, peak], in parts of C channels; grey images become RGB by a colouriser.

        ``finish`` is applied to the pixels of each part, as by ``upscale_tiled``.

        Raises:
            DeviceError: If the device has too little memory.
            WeightsError: If the output is not finite, even in float32.
        """
        adapted = self._to_network_channels(low, peak)
        if self.fast is not self.generator:
            # Half precision overflows with some weights and on some GPUs; then the image is upscaled again in float32.
            try:
                yield from self._run(self.fast, adapted, low, peak, finish)
                return
            except WeightsError:
                pass
        yield from self._run(self.generator, adapted, low, peak, finish)
        if self.fast is not self.generator and not self.has_overflowed:
            self.has_overflowed = True
            log.warning(
                "half precision overflows with this model, so images are upscaled again in float32; "
                "--precision fp32 avoids the first attempt"
            )

    def _run(self, network: Generator, adapted: Tensor, low: Tensor, peak: float, finish: Finish) -> Iterator[Part]:
        def check_and_finish(pixels: Tensor) -> Tensor:
            if not torch.isfinite(pixels).all():
                raise WeightsError(
                    "the network's output contains NaN or infinity; "
                    "its weights are damaged, or the image contains such values"
                )
            return finish(self._to_image_channels(pixels, *low.shape[:2]))

        return upscale_tiled(network, adapted, peak, self.kernels, check_and_finish)

    def _to_network_channels(self, low: Tensor, peak: float) -> Tensor:
        batch, image_channels, height, width = low.shape
        network_channels = self.generator.in_channels
        if image_channels == network_channels:
            return low
        if self.is_colouriser:
            weights = torch.tensor(LUMA_WEIGHTS, dtype=torch.float32, device=low.device)
            return (low.float() * weights[:, None, None]).sum(1, keepdim=True)
        if network_channels == 1:  # upscale channels separately
            return low.reshape(batch * image_channels, 1, height, width)
        if network_channels not in (3, 4):
            remedy = f"pass tensors with {network_channels} channels"
            raise WeightsError(f"expected a network for grey, RGB or RGBA, got {network_channels} channels; {remedy}")
        low = low.expand(-1, 3, -1, -1)
        return torch.cat([low, torch.full_like(low[:, :1], peak)], 1) if network_channels == 4 else low

    def _to_image_channels(self, high: Tensor, batch: int, image_channels: int) -> Tensor:
        network_channels = self.generator.out_channels
        if image_channels != network_channels and network_channels == 1:
            return high.reshape(batch, image_channels, *high.shape[2:])
        if image_channels == 1 and network_channels > 1:
            return high[:, :3].mean(1, keepdim=True)
        return high[:, :image_channels]


def check_unchanged(generator: Generator) -> None:
    """Check that the weights of a generator determine its output.

    Only small images pass through the generator itself; for others, its layers are computed in strips from the weights.

    Raises:
        TypeError: If it has other layers, options, methods or hooks than its class.
    """
    if change := _find_change(generator):
        remedy = "undo the change (weight_norm, prune and LoRA can be merged into the weights), or call it by PyTorch"
        raise TypeError(
            f"expected RRDBNet or SRVGGNetCompact without changes, because its output is computed from its weights, "
            f"got {change}; {remedy}"
        )


def _find_change(generator: Generator) -> str | None:
    """Return how a generator differs from one that is newly built with the shapes of its weights."""
    kind = RRDBNet if isinstance(generator, RRDBNet) else SRVGGNetCompact
    title = type(generator).__name__
    if not isinstance(generator, kind):
        return f"another network, {title}"
    if own := [each for each in _COMPUTATION if getattr(type(generator), each) is not getattr(kind, each)]:
        return f"{title} with its own {own[0]}"
    modules = {
        name: module
        for name, module in generator.named_modules(remove_duplicate=False)
        if not name or _COMPUTED.match(name)
    }
    for name, module in modules.items():
        if module._forward_hooks or module._forward_pre_hooks:
            return f"a hook in {name or 'the network'}"
        own = vars(module).get("forward")
        own = getattr(own, "_torchdynamo_orig_callable", own)  # of torch.compile
        if own is not None and getattr(own, "__func__", own) is not type(module).forward:
            return f"another forward in {name or 'the network'}"
        if name and type(module) not in _LAYERS:
            return f"{type(module).__name__} in {name}"
    state = {name: value for name, value in generator.state_dict().items() if _COMPUTED.match(name)}
    try:
        architecture = infer_architecture(state, "layers")
    except WeightsError:  # numbers of layers or channels that no file has, in layers that are all known
        return None
    expected = make_empty(architecture.build)
    try:
        check_complete(state, expected.state_dict(), "layers")
    except WeightsError as error:
        return str(error).partition("; ")[0]
    layers = dict(expected.named_modules())
    if names := sorted(modules.keys() ^ layers.keys()):
        return f"another number of layers (first: {names[0]})"
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d) and repr(modules[name]) != repr(layer):
            return f"{modules[name]} in {name}, not {layer}"
    return None


def receptive_field(generator: Generator) -> int:
    """Return how many pixels of the input, in each direction, a pixel of the output depends on at most."""
    convolutions = 0.0
    for name, module in generator.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            up = name.removeprefix("conv_up")
            resolution = 2 ** (int(up) - 1) if up != name else 1
            if name in ("conv_hr", "conv_last"):
                resolution = generator.upsampling
            convolutions += 1 / resolution
    return (int(convolutions) + 1) * generator.unshuffle_factor
