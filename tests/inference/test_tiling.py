import math
import subprocess
import sys
import weakref
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from esrgan import devices
from esrgan.errors import DeviceError, LostDeviceError
from esrgan.inference import direct, tiling
from esrgan.inference.tiling import Part, Tiling, estimate_memory
from esrgan.models import Generator
from tests.helpers.tiling import make_network, upscale_in_parts, upscale_whole


@pytest.mark.parametrize("chosen", [Tiling(16), Tiling(16, bands=2)])
def test_progress_is_the_share_of_the_work(chosen, monkeypatch):
    """A deep network writes nothing for most of the time that a short image takes, and then nearly all at once."""
    network, low = make_network(num_basic_blocks=4), torch.rand(1, 3, 60, 130)
    multiplied, reported, written = 0, [], []
    convolve = direct._convolve

    def count(window, weight, bias, dim):
        nonlocal multiplied
        lines = convolve(window, weight, bias, dim)
        multiplied += weight.numel() * lines[0, 0].numel()
        return lines

    monkeypatch.setattr(direct, "_convolve", count)
    monkeypatch.setattr(tiling, "choose_tiling", lambda *_: chosen)
    for part in tiling.upscale_tiled(network, low):
        reported.append((part.done, multiplied))
        written.append(part.pixels[:, :1].numel())
    assert reported[-1] == (1, multiplied)
    for done, so_far in reported:
        assert done == pytest.approx(so_far / multiplied, abs=0.01 if chosen.bands == 1 else 0.1)
    first = next(i for i, pixels in enumerate(written) if pixels)
    assert reported[first][0] > 0.1 / chosen.bands
    assert max(b - a for (a, _), (b, _) in pairwise(reported)) < 0.05


@pytest.mark.parametrize("shape", [(600, 300), (301, 603)])
@pytest.mark.parametrize("options", [{}, {"scale_factor": 1, "pixel_unshuffle": True, "rrdb_channels": 48}])
@pytest.mark.slow
def test_bands_are_exact_if_overlap_covers_receptive_field(shape, options):
    network = make_network(**options)  # the receptive field of 15 + 5 convolutions is smaller than the overlap
    low = torch.rand(1, 3, *shape)
    high, parts = upscale_in_parts(network, low, Tiling(lines=64, bands=3))
    torch.testing.assert_close(high, upscale_whole(network, low), rtol=0, atol=2e-5)
    assert max(min(part) for part in parts) <= network.scale_factor * math.ceil(min(shape) / 3 / 4) * 4


def fail_until_small_enough(monkeypatch, is_small_enough, error):
    """Make each attempt fail halfway if its tiling is too large, and return the list of tilings that are tried."""
    tilings = []
    real = tiling._upscale_tiles

    def run(network, low, peak, used, kernels):
        tilings.append(used)
        if not is_small_enough(used):
            yield Part(torch.zeros(1, 3, 8, 8), 0, 0, 0.1)
            raise error
        yield from real(network, low, peak, used, kernels)

    monkeypatch.setattr(tiling, "_upscale_tiles", run)
    return tilings


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
@pytest.mark.slow
def test_out_of_memory_halves_the_strips(monkeypatch, error):
    tilings = fail_until_small_enough(monkeypatch, lambda used: used.lines <= 8, error)
    network, low = make_network(), torch.rand(1, 3, 120, 64)
    high, _ = upscale_in_parts(network, low, Tiling(lines=33))
    assert [used.lines for used in tilings] == [33, 16, 8]
    assert torch.equal(high, upscale_whole(network, low))


@pytest.mark.slow
def test_out_of_memory_at_one_line_splits_into_bands(monkeypatch):
    tilings = fail_until_small_enough(monkeypatch, lambda used: used.bands == 4, torch.OutOfMemoryError())
    network, low = make_network(), torch.rand(1, 3, 270, 260)
    high, _ = upscale_in_parts(network, low, Tiling(lines=2))
    assert [(used.lines, used.bands) for used in tilings] == [(2, 1), (1, 1), (1, 2), (1, 4)]
    torch.testing.assert_close(high, upscale_whole(network, low), rtol=0, atol=2e-5)


def test_memory_is_freed_before_the_next_attempt(monkeypatch):
    network, low, alive = make_network(), torch.rand(1, 3, 200, 120), []
    real = tiling._upscale_tiles

    def run(*arguments):
        alive.append([each() for each in buffers if each() is not None])
        buffers.clear()
        yield from real(*arguments)

    buffers = []
    init = direct._LineBuffer.__init__

    def noted(self, *arguments):
        init(self, *arguments)
        buffers.append(weakref.ref(self))
        if len(alive) == 1 and len(buffers) == 20:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(direct._LineBuffer, "__init__", noted)
    monkeypatch.setattr(tiling, "_upscale_tiles", run)
    upscale_in_parts(network, low, Tiling(8))
    assert alive == [[], []]


@pytest.mark.parametrize("size", [(200, 120), (4, 4)])
def test_out_of_memory_while_parts_are_finished_makes_them_smaller(monkeypatch, size):
    """What is done with each part needs memory of its own; none of the failed attempt may be held."""
    network, low, alive, lines = make_network(), torch.rand(1, 3, *size), [], []
    real = tiling._upscale_tiles

    def run(network, low, peak, used, kernels):
        alive.append([each() for each in finished if each() is not None])
        lines.append(used.lines)
        yield from real(network, low, peak, used, kernels)

    finished = []

    def finish(pixels):
        if pixels.numel():
            finished.append(weakref.ref(pixels))
            if len(lines) < 2:
                raise torch.OutOfMemoryError
        return pixels + 1

    monkeypatch.setattr(tiling, "_upscale_tiles", run)
    monkeypatch.setattr(tiling, "choose_tiling", lambda *_: Tiling(8))
    high = torch.zeros(1, 3, 4 * size[0], 4 * size[1])
    for part in tiling.upscale_tiled(network, low, finish=finish):
        if part.pixels.numel():
            part.copy_to(high)
    assert lines in ([8, 4], [4, 2])
    assert not any(alive)
    torch.testing.assert_close(high - 1, upscale_whole(network, low), rtol=0, atol=1e-5)


def test_out_of_memory_on_a_small_image_raises(monkeypatch):
    def read(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(tiling, "_read", read)
    with pytest.raises(DeviceError, match="not enough memory to upscale 4×4 px"):
        list(tiling.upscale_tiled(make_network(), torch.rand(1, 3, 4, 4)))


def test_hopeless_memory_raises_and_other_errors_propagate(monkeypatch):
    network, low = make_network(), torch.rand(1, 3, 120, 110)
    with monkeypatch.context() as patch:
        fail_until_small_enough(patch, lambda _: False, torch.OutOfMemoryError())
        with pytest.raises(DeviceError, match="cpu: not enough memory to upscale 110×120 px even in small parts"):
            upscale_in_parts(network, low)
    fail_until_small_enough(monkeypatch, lambda _: False, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        upscale_in_parts(network, low)


def test_tiling_follows_the_free_memory(monkeypatch):
    network = make_network(rrdb_channels=64, growth_channels=32, num_basic_blocks=23)
    kept, line = estimate_memory(network, 4000)

    def tiling_for(available):
        monkeypatch.setattr(tiling, "available_memory", lambda: available / tiling.MEMORY_FRACTION)
        return tiling.choose_tiling(network, 6000, 4000)

    assert tiling_for(10**12) == Tiling(lines=tiling.CPU_STRIP_PIXELS // 4000)
    assert tiling_for(kept + 3.5 * line) == Tiling(lines=3)
    assert tiling_for(kept + line).bands == 1
    assert tiling_for(kept).bands == 2
    assert tiling_for(kept / 8).bands > 8


@pytest.fixture
def gpu(monkeypatch):
    """Return a function that sets the memory of a GPU in bytes, on which all networks then seem to be."""
    monkeypatch.setattr(Generator, "device", torch.device("cuda:0"))

    def have(total, free, reserved=0, allocated=0, fraction=1.0):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, total))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: reserved)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: allocated)
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: fraction)

    return have


def test_tiling_follows_the_free_memory_of_a_gpu(gpu):
    network = make_network(rrdb_channels=64, growth_channels=32, num_basic_blocks=6)
    kept, line = estimate_memory(network, 1000)
    total, needed = 10**12, math.ceil((kept + 3.5 * line) / tiling.MEMORY_FRACTION)
    gpu(total, free=total)
    assert tiling.choose_tiling(network, 6000, 1000) == Tiling(lines=tiling.GPU_STRIP_PIXELS // 1000)
    assert tiling.choose_tiling(network, 100, 50) == Tiling(lines=100)
    gpu(total, free=needed)
    assert tiling.choose_tiling(network, 6000, 1000) == Tiling(lines=3)
    gpu(total, free=needed - 10**6, reserved=10**8 + 10**6, allocated=10**8)  # what PyTorch keeps is free for it
    assert tiling.choose_tiling(network, 6000, 1000) == Tiling(lines=3)
    gpu(total, free=total // 2, reserved=10**8, allocated=10**8, fraction=(needed + 10**8 + 1) / total)
    assert tiling.choose_tiling(network, 6000, 1000) == Tiling(lines=3)


@pytest.mark.parametrize("trial", ["CUDA error: unspecified launch failure", "CUDA out of memory", None])
def test_an_error_that_ends_the_use_of_a_gpu_is_told_from_others(monkeypatch, gpu, trial):
    text = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"
    gpu(10**12, free=10**12)
    fail_until_small_enough(monkeypatch, lambda _: False, torch.AcceleratorError(text))

    def try_gpu(_):
        if trial:
            raise torch.AcceleratorError(trial)

    monkeypatch.setattr(devices, "_try", try_gpu)
    is_lost = trial is not None and "memory" not in trial
    expected = (
        "cuda:0: the GPU failed (CUDA error: unspecified launch failure), and this process cannot use it any more"
    )
    with pytest.raises(LostDeviceError if is_lost else torch.AcceleratorError) as error:
        list(tiling.upscale_tiled(make_network(), torch.zeros(1, 3, 200, 120)))
    assert str(error.value) == (f"{expected}; start the program again" if is_lost else text)


def test_bytes_are_sent_to_a_gpu_and_converted_there():
    class Copies(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.sent = []

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            if operation is torch.ops.aten._to_copy.default and args[0].device != result.device:
                self.sent.append(args[0].dtype)
            return result

    with FakeTensorMode(), Copies() as copies:
        low = torch.zeros(1, 3, 20, 30, dtype=torch.uint8)
        region = tiling._read(SimpleNamespace(device=torch.device("cuda:0")), low, 255.0, slice(4, 9), slice(None))
    assert (region.device.type, region.dtype, region.shape) == ("cuda", torch.float32, (1, 3, 5, 30))
    assert copies.sent == [torch.uint8]


@pytest.mark.parametrize("size", [(6, 5), (90, 80)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_is_exact_while_parts_are_computed(monkeypatch, size, dtype):
    network, events = make_network(), []
    for layer in network.trunk:
        layer.to(dtype)

    @contextmanager
    def noted(device):
        events.append(str(device))
        yield
        events.pop()

    monkeypatch.setattr(tiling, "exact_float32", noted)
    network.conv_last.register_forward_hook(lambda *_: seen.append(list(events)))
    convolve, seen = direct._convolve, []
    monkeypatch.setattr(direct, "_convolve", lambda *each: (seen.append(list(events)), convolve(*each))[1])
    for _ in tiling.upscale_tiled(network, torch.rand(1, 3, *size)):
        assert not events  # not while the caller uses a part
    assert seen
    assert all(each == (["cpu"] if dtype == torch.float32 else []) for each in seen)


PEAK = """
import gc, sys, psutil
from esrgan.cli.process import keep_freed_memory
keep_freed_memory()
import torch
from tests.helpers.tiling import make_network
from esrgan.inference import direct, tiling
process, resident, tensors = psutil.Process(), [], []
def convolve(self, window):  # allocates the memory of a convolution without computing it
    resident.append(process.memory_info().rss)
    storages = {each.untyped_storage() for each in gc.get_objects() if type(each) is torch.Tensor}
    tensors.append(sum(each.nbytes() for each in storages))
    shape = list(window.shape)
    shape[1], shape[self.dim] = self.conv.out_channels, shape[self.dim] - 2
    return torch.empty(shape, memory_format=torch.channels_last).fill_(1)
direct._LineBuffer.convolve = convolve
torch.set_num_threads(1)
across, length, lines = map(int, sys.argv[1:])
network = make_network(rrdb_channels=64, growth_channels=32, num_basic_blocks=6)
tiling.choose_tiling = lambda *_: tiling.Tiling(lines)
low = torch.zeros(1, 1, 1, 1).expand(1, 3, length, across)
gc.freeze()  # existing tensors are not counted
before = process.memory_info().rss
for _ in tiling.upscale_tiled(network, low):
    pass
print(max(tensors), max(resident) - before)
"""


@pytest.mark.slow
def test_memory_matches_estimate_and_is_independent_of_length():
    across, lines = 400, 16
    kept, line = estimate_memory(make_network(rrdb_channels=64, growth_channels=32, num_basic_blocks=6), across)
    planned = kept + lines * line
    (short, short_resident), (tensors, resident) = (
        map(
            int,
            subprocess.check_output(
                [sys.executable, "-c", PEAK, *map(str, (across, length, lines))], text=True
            ).split(),
        )
        for length in (450, 700)
    )
    assert tensors < 1.02 * short
    assert resident < 1.2 * short_resident
    assert 0.5 < tensors / planned < 0.6
    assert 0.6 < resident / planned < 1.2
