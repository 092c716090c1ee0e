"""Shared fixtures: tiny images, a configuration that trains in a second, and untrained VGG weights."""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# More threads do not speed up networks of a few channels, which would wait for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from esrgan import files, locks
from tests.helpers import images

settings.register_profile("no deadline", deadline=None)  # a busy machine exceeds any
settings.load_profile("no deadline")


def pytest_configure() -> None:
    """Let Ctrl-C work: shells let background jobs ignore it, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merge(result[key], value) if nested else value
    return result


@pytest.fixture(autouse=True, scope="session")
def isolated_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep results out of the user's cache, also those of processes that the tests start."""
    os.environ["ESRGAN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def gpu_problems(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that simulates GPUs; its arguments say for each why it cannot be used, or are None."""
    import torch

    def simulate(*problems: str | None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(problems))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(problems))
        monkeypatch.setattr("esrgan.devices.find_gpu_problem", lambda device: problems[device.index or 0])

    return simulate


@pytest.fixture
def winograd_on_every_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test Winograd's algorithm also on CPUs where commands do not use it."""
    monkeypatch.setattr("esrgan.devices.has_fast_winograd", lambda: True)


@pytest.fixture(scope="session")
def write_images() -> Callable[..., Path]:
    """Return the function ``(folder, count, size=(44, 40), channels=3)`` that writes smooth images into a folder."""
    return images.write_images


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with four RGB images of 44×40 px in ``train`` and two of 36×32 px in ``val``."""
    folder = tmp_path_factory.mktemp("photos")
    images.write_images(folder / "train", 4)
    images.write_images(folder / "val", 2, (36, 32))
    return folder


@pytest.fixture(scope="session")
def vgg11_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of random weights for VGG11 up to conv2_1, in torchvision's layout."""
    import torch

    generator = torch.Generator().manual_seed(0)
    state = {
        f"features.{index}.{name}": torch.randn(shape, generator=generator) * scale
        for index, (outputs, inputs) in {0: (64, 3), 3: (128, 64)}.items()
        for name, shape, scale in (("weight", (outputs, inputs, 3, 3), (2 / 9 / inputs) ** 0.5), ("bias", outputs, 0.1))
    }
    path = tmp_path_factory.mktemp("vgg") / "vgg11.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def tiny_config(photos: Path, vgg11_weights: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that creates a tiny configuration: six steps in each stage, two steps per epoch.

    Its keyword arguments replace keys, and sections are merged: ``tiny_config(batch_size=1, training={"g_lr": 1e-3})``.
    """
    stage = {
        "num_steps": 6,
        "cr_patch_size": [32, 32],
        "train_datasets": [str(photos / "train")],
        "val_datasets": [str(photos / "val")],
    }
    base = {
        "batch_size": 2,
        "seed": 3,
        "cache_dir": str(photos / "cache"),
        "ema_decay": 0.9,
        "validation_interval": 2,
        "keep_checkpoints": 1,
        "pretraining": stage | {"lr": 1e-3, "sched_step": 4},
        "training": stage | {"g_lr": 1e-3, "d_lr": 2e-3, "g_sched_steps": [3, 5], "d_sched_steps": [4]},
        "generator": {"rrdb_channels": 8, "growth_channels": 4, "num_basic_blocks": 1, "small_init": "trunk"},
        "discriminator": {"vgg_blk_ch": [4, 4, 8, 8], "fc_features": [10]},
        "perceptual_loss": {"vgg_type": "vgg11", "layer_weights": {"conv2_1": 1.0}, "weights": str(vgg11_weights)},
        "logging": {"interval": 1, "tensorboard": False},
    }
    return lambda **changes: _merge(base, changes)


@pytest.fixture
def no_vgg_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Remove ImageNet weights and network access; return the folder where torch.hub would keep the weights."""
    import urllib.error
    import urllib.request

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("esrgan.download.RETRY_DELAY_S", 0.0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    return tmp_path / "torch_home"


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Set the signal handlers with which Python begins, whatever pytest's parent process ignores."""
    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    assert {number: signal.getsignal(number) for number in handlers} == handlers  # a command restores them
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.fixture
def foreground_signals() -> Iterator[None]:
    """Set the signal handlers of a foreground program, also below nohup, which ignores SIGHUP.

    An unhandled SIGTERM or SIGHUP fails the test instead of ending pytest.
    """

    def fail(number: int, _: object) -> None:
        raise AssertionError(f"nothing handled signal {number}")

    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: fail, signal.SIGHUP: fail}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imitate Windows' locks, and that it deletes no open file."""
    fcntl = pytest.importorskip("fcntl")
    unlink = Path.unlink

    def unlink_closed(path: Path, **options: bool) -> None:
        if any(path.samefile(link) for link in Path("/proc/self/fd").iterdir() if link.exists()):
            raise PermissionError(errno.EACCES, "It is being used by another process", str(path))
        unlink(path, **options)

    def lock_file(handle: Any, *_: int) -> int:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle.value, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return 1
        return 0

    monkeypatch.setattr(files, "_IS_WINDOWS", True)
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", SimpleNamespace(get_osfhandle=lambda number: number))
    kernel = SimpleNamespace(LockFile=lock_file)
    monkeypatch.setattr(locks.ctypes, "WinDLL", lambda *_, **__: kernel, raising=False)
    monkeypatch.setattr(locks.ctypes, "get_last_error", lambda: 33, raising=False)
    if Path("/proc/self/fd").exists():
        monkeypatch.setattr(Path, "unlink", unlink_closed)
