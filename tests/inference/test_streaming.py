import math
import subprocess
import sys
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from esrgan.errors import DeviceError
from esrgan.inference import enlarge as module
from esrgan.inference import strips
from esrgan.inference.enlarge import _Plan, enlarge, memory_of
from esrgan.inference.strips import SMALL_INPUT
from esrgan.models import RRDBNet


def make(**options):
    torch.manual_seed(0)
    sizes = {"rrdb_channels": 8, "growth_channels": 4, "num_basic_blocks": 1, "small_init": "trunk"} | options
    network = RRDBNet(**sizes).eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


def whole(network, low):
    with torch.inference_mode():
        return network(low.contiguous(memory_format=torch.channels_last))


def by_parts(network, low, plan=None):
    """Enlarge by the given plan, or by the one chosen, and note the parts."""
    scale, parts = network.scale_factor, []
    high = torch.full((*low.shape[:2], low.shape[2] * scale, low.shape[3] * scale), torch.nan)

    def read(rows, columns):
        return low[:, :, rows, columns].contiguous(memory_format=torch.channels_last)

    def write(part, top, left):
        parts.append(tuple(part.shape[2:]))
        high[:, :, top : top + part.shape[2], left : left + part.shape[3]] = part

    with pytest.MonkeyPatch.context() as patch:
        if plan is not None:
            patch.setattr(module, "_plan", lambda *_: plan)
        enlarge(network, *low.shape[2:], read, write)
    return high, parts


def test_progress_tells_the_share_that_is_written():
    network, low, told = make(), torch.rand(1, 3, 60, 130), []
    for plan in (_Plan(16), _Plan(16, bands=2)):
        told.clear()
        written = torch.zeros(60 * network.scale_factor, 130 * network.scale_factor)

        def write(part, top, left, written=written):
            written[top : top + part.shape[2], left : left + part.shape[3]] = 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_plan", lambda *_, plan=plan: plan)
            enlarge(
                network,
                60,
                130,
                lambda rows, columns: low[:, :, rows, columns],
                write,
                lambda share, written=written: told.append((share, written.mean().item())),
            )
        assert len(told) > 8 * plan.bands
        assert told[-1][0] == 1
        assert all(share == pytest.approx(area) for share, area in told)


# Exactness


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 130),
    width=st.integers(1, 130),
    lines=st.integers(1, 140),
    options=st.sampled_from(
        [
            {"scale_factor": 4},
            {"scale_factor": 2, "use_subpixel_conv": True},
            {"scale_factor": 1, "rrdb_channels": 16},
            {"scale_factor": 8, "num_dense_blocks": 1},
            {"scale_factor": 2, "pixel_unshuffle": True, "rrdb_channels": 24},
            {"scale_factor": 1, "pixel_unshuffle": True, "rrdb_channels": 48},
            {"scale_factor": 2, "img_channels": 1, "num_residual_blocks": 3},
            {"scale_factor": 2, "img_channels": 4, "num_basic_blocks": 2},
            {"scale_factor": 1, "residual_scaling": 0.3, "num_residual_blocks": 1},
        ]
    ),
    seed=st.integers(0, 2**16),
)
def test_strips_equal_the_whole_image_bit_for_bit(height, width, lines, options, seed):
    network = make(**options)
    # Near and above the limit below which nothing is streamed.
    enough = SMALL_INPUT // (min(network.conv_first.weight.shape[:2]) * height) * network.unshuffle_factor**2
    low = torch.rand(1, network.conv_last.out_channels, height, max(width, min(enough + 3, 700)))
    high, _ = by_parts(network, low, _Plan(lines))
    assert torch.equal(high, whole(network, low))


@pytest.mark.parametrize("shape", [(300, 40), (40, 300)])
def test_an_image_is_cut_across_its_longer_side(shape):
    low, network = torch.rand(1, 3, *shape), make()
    high, parts = by_parts(network, low, _Plan(lines=16))
    assert torch.equal(high, whole(network, low))
    assert len(parts) > 300 * 4 / 24
    assert {part[shape.index(40)] for part in parts} == {160}
    assert max(part[shape.index(300)] for part in parts) <= 24  # not one is much thicker than was asked for
    # Most have one shape.
    assert sum(part[shape.index(300)] == 16 for part in parts) > len(parts) / 2


def test_batches():
    low, network = torch.rand(3, 3, 80, 90), make()
    high, parts = by_parts(network, low, _Plan(lines=7))
    assert torch.equal(high, whole(network, low))
    assert len(parts) > 1


def test_a_strip_is_not_computed_twice(monkeypatch):
    network, low = make(), torch.rand(1, 3, 200, 60)
    computed = []
    convolve = torch.mkldnn_convolution

    def counted(x, weight, bias, *options):
        result = convolve(x, weight, bias, *options)
        computed.append(result.numel() * weight[0].numel())
        return result

    monkeypatch.setattr(torch, "mkldnn_convolution", counted)
    by_parts(network, low, _Plan(lines=5))
    needed = sum(
        weight.numel() * 200 * 60 * {"conv_up1": 4, "conv_up2": 16, "conv_hr": 16, "conv_last": 16}.get(name[:-7], 1)
        for name, weight in network.named_parameters()
        if weight.ndim == 4
    )
    assert sum(computed) == needed


# Bands


@pytest.mark.parametrize("shape", [(600, 300), (301, 603)])
@pytest.mark.parametrize("options", [{}, {"scale_factor": 1, "pixel_unshuffle": True, "rrdb_channels": 48}])
def test_bands_are_exact_where_the_overlap_covers_what_the_network_sees(shape, options):
    network = make(**options)  # 15 + 5 convolutions see less than the overlap
    low = torch.rand(1, 3, *shape)
    high, parts = by_parts(network, low, _Plan(lines=64, bands=3))
    torch.testing.assert_close(high, whole(network, low), rtol=0, atol=2e-5)
    assert max(min(part) for part in parts) <= network.scale_factor * math.ceil(min(shape) / 3 / 4) * 4


# Memory


def fail_until(monkeypatch, is_small_enough, error):
    """Let every pass fail whose plan is too large, in its middle."""
    plans = []
    real = module._pass

    def run(network, height, width, read, write, plan, progress):
        plans.append(plan)
        if not is_small_enough(plan):
            write(torch.zeros(1, 3, 8, 8), 0, 0)
            raise error
        real(network, height, width, read, write, plan, progress)

    monkeypatch.setattr(module, "_pass", run)
    return plans


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_strips_and_goes_on(monkeypatch, error):
    plans = fail_until(monkeypatch, lambda plan: plan.lines <= 8, error)
    network, low = make(), torch.rand(1, 3, 120, 64)
    high, _ = by_parts(network, low, _Plan(lines=33))
    assert [plan.lines for plan in plans] == [33, 16, 8]
    assert torch.equal(high, whole(network, low))


def test_out_of_memory_with_one_line_cuts_bands(monkeypatch):
    plans = fail_until(monkeypatch, lambda plan: plan.bands == 4, torch.OutOfMemoryError())
    network, low = make(), torch.rand(1, 3, 270, 260)
    high, _ = by_parts(network, low, _Plan(lines=2))
    assert [(plan.lines, plan.bands) for plan in plans] == [(2, 1), (1, 1), (1, 2), (1, 4)]
    torch.testing.assert_close(high, whole(network, low), rtol=0, atol=2e-5)


def test_the_failed_attempt_is_out_of_memory_before_the_next(monkeypatch):
    network, low, alive = make(), torch.rand(1, 3, 200, 120), []
    real = module._pass

    def run(*arguments):
        alive.append([each() for each in windows if each() is not None])
        windows.clear()
        real(*arguments)

    windows = []
    init = strips._Window.__init__

    def noted(self, *arguments):
        init(self, *arguments)
        windows.append(weakref.ref(self))
        if len(alive) == 1 and len(windows) == 20:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(strips._Window, "__init__", noted)
    monkeypatch.setattr(module, "_pass", run)
    by_parts(network, low, _Plan(8))
    assert alive == [[], []]


def test_no_memory_for_a_small_image_is_an_error_too():
    network = make()
    low = torch.rand(1, 3, 4, 4)

    def read(rows, columns):
        raise torch.OutOfMemoryError

    with pytest.raises(DeviceError, match="too little memory to enlarge 4×4 px"):
        enlarge(network, *low.shape[2:], read, lambda *_: None)


def test_no_memory_at_all_is_an_error_and_other_errors_stay(monkeypatch):
    network, low = make(), torch.rand(1, 3, 120, 110)
    with monkeypatch.context() as patch:
        fail_until(patch, lambda _: False, torch.OutOfMemoryError())
        with pytest.raises(DeviceError, match="cpu: too little memory to enlarge 110×120 px even by small parts"):
            by_parts(network, low)
    fail_until(monkeypatch, lambda _: False, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        by_parts(network, low)


def test_the_plan_follows_the_free_memory(monkeypatch):
    network = make(rrdb_channels=64, growth_channels=32, num_basic_blocks=23)
    kept, line = memory_of(network, 4000)

    def plan(available):
        memory = type("Memory", (), {"available": available / module.MEMORY_SHARE})
        monkeypatch.setattr(module.psutil, "virtual_memory", lambda: memory)
        return module._plan(network, 6000, 4000)

    assert plan(10**12) == _Plan(lines=module.CPU_STRIP_PIXELS // 4000)
    assert plan(kept + 3.5 * line) == _Plan(lines=3)
    assert plan(kept + line).bands == 1
    assert plan(kept).bands == 2
    assert plan(kept / 8).bands > 8


PEAK = """
import gc, sys, psutil
from esrgan.cli.command import keep_freed_memory
keep_freed_memory()
import torch
from tests.test_strips import make
from esrgan.inference import enlarge as module, strips
process, resident, tensors = psutil.Process(), [], []
def convolve(self, window):  # the memory of a convolution without its work
    resident.append(process.memory_info().rss)
    storages = {each.untyped_storage() for each in gc.get_objects() if type(each) is torch.Tensor}
    tensors.append(sum(each.nbytes() for each in storages))
    shape = list(window.shape)
    shape[1], shape[self.dim] = self.conv.out_channels, shape[self.dim] - 2
    return torch.empty(shape, memory_format=torch.channels_last).fill_(1)
strips._Window.convolve = convolve
torch.set_num_threads(1)
across, length, lines = map(int, sys.argv[1:])
network = make(rrdb_channels=64, growth_channels=32, num_basic_blocks=6)
module._plan = lambda *_: module._Plan(lines)
read = lambda *at: torch.zeros([1, 3, *(each.stop - each.start for each in at)])
gc.freeze()  # what is there already is not asked for
before = process.memory_info().rss
module.enlarge(network, length, across, read, lambda *_: None)
print(max(tensors), max(resident) - before)
"""


def test_memory_is_as_planned_and_does_not_grow_with_the_length():
    across, lines = 400, 16
    kept, line = memory_of(make(rrdb_channels=64, growth_channels=32, num_basic_blocks=6), across)
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
