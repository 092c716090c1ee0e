"""Training with several processes: equal results, resuming, and the end of a run that loses a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.distributed import Store, TCPStore
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from esrgan import rendezvous
from esrgan.errors import EsrganError, LostProcessError
from esrgan.models.vgg import torchvision_weights_path
from esrgan.training import agreement, distributed, heartbeat
from tests.helpers.runs import (
    FORKSERVER,
    OPTIONS_BEYOND_THE_PAPER,
    after_step,
    comparable_content,
    find_differences,
    load_run_files,
    press_ctrl_c,
    rank_environment,
    read_records,
    train_main,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses Linux signals")

Make = Callable[..., dict[str, Any]]
Act = Callable[[], object]


@dataclass(frozen=True)
class ProcessResult:
    """Exit code of a process, and its output on both streams."""

    code: int
    output: str


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def fail() -> None:
    raise ValueError("no such colour")


def interrupt() -> None:
    raise KeyboardInterrupt


def exhaust() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def run_rank(
    rank: int,
    port: int,
    folder: Path,
    arguments: list[str],
    act: tuple[str, int, Act] | None,
    environment: Mapping[str, str],
) -> None:
    """Act as one of two processes started by torchrun, on a machine that has only its own folder."""
    log = (folder / "output").open("w", encoding="utf-8", buffering=1)
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    sys.stdout = sys.stderr = log
    os.environ |= environment | rank_environment(rank, port)
    os.environ["ESRGAN_DATA"] = str(folder / "data")
    os.chdir(folder)
    heartbeat.TIMEOUT_S, heartbeat.GRACE_PERIOD_S = 3.0, 1.0
    with after_step(*act) if act else nullcontext():
        if code := train_main(arguments):
            os._exit(code)


def run_ranks(
    folders: list[Path], arguments: list[str] | list[list[str]], *acts: tuple[str, int, Act] | None
) -> list[ProcessResult]:
    """Run two processes to their ends.

    Args:
        folders: The folder of each process.
        arguments: Arguments of the command; one list for both processes or one for each.
        acts: (stage, step, function to call after it) for each process.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # like torchrun's, outlives the processes
    processes = []
    for rank, folder in enumerate(folders):
        own = arguments[rank] if isinstance(arguments[rank], list) else arguments
        act = acts[rank] if acts else None
        arguments_of_rank = (rank, store.port, folder, own, act, dict(os.environ))
        processes.append(FORKSERVER.Process(target=run_rank, args=arguments_of_rank))
    try:
        for process in processes:
            process.start()
        for process, act in zip(processes, acts or (None, None), strict=True):
            process.join(0 if act and act[2] is stop else 60)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [
        ProcessResult(process.exitcode, (folder / "output").read_text(encoding="utf-8"))
        for process, folder in zip(processes, folders, strict=True)
    ]


@pytest.fixture(scope="module")
def make_machines(
    tmp_path_factory: pytest.TempPathFactory, write_images: Callable[..., Path]
) -> Callable[[], list[Path]]:
    """Return a function that creates the folders of two machines, each with its own copy of the dataset."""

    def make() -> list[Path]:
        folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
        for folder in folders:
            write_images(folder / "data/Set5/GTmod12", 5)
        return folders

    return make


@pytest.fixture(scope="module")
def write_config(tiny_config: Make, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return a function that writes a configuration with batch size 16; its keyword arguments replace keys."""

    def write(**changes: Any) -> str:
        data = {"train_datasets": ["set5"], "val_datasets": ["set5"], "betas": [0.9, 0.99]}
        sections = {name: data | changes.pop(name, {}) for name in ("pretraining", "training")}
        config = tiny_config(batch_size=16, cache_dir=None, logging={"interval": 4, "tensorboard": False}, **sections)
        path = tmp_path_factory.mktemp("configured") / "tiny.json"
        path.write_text(json.dumps(config | changes), encoding="utf-8")
        return str(path)

    return write


COMMAND = ["--device", "cpu", "-o", "out", "--run-name", "first", "-i", "1"]


def run_single_process(folder: Path, arguments: list[str]) -> None:
    """Run the command in a single process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESRGAN_DATA", str(folder / "data"))
        patch.chdir(folder)
        assert train_main(arguments) == 0


def max_relative_difference(one: Path, other: Path) -> float:
    """Compute |a − b| / |b| of the worst tensor in the networks that both runs have written."""
    greatest = 0.0
    files, reference = load_run_files(one), load_run_files(other)
    for name in files.keys() & reference.keys():
        first, second = ({"g": each[name]["params"]} for each in (files, reference))
        for each, networks in ((files, first), (reference, second)):
            networks["d"] = each[name].get("checkpoint", {}).get("stage", {}).get("discriminator", {})
        for network, state in first.items():
            for key, value in state.items():
                # Skip buffers that training does not use, and the bias of the logits. A constant added to all logits
                # cancels out in a relativistic loss, so its gradient is only rounding error, which Adam amplifies.
                if not re.search(r"running|tracked|linear_out\.bias", key):
                    expected = second[network][key]
                    greatest = max(greatest, float((value - expected).norm() / expected.norm()))
    return greatest


@pytest.fixture(scope="module")
def two_process_run(make_machines: Callable[[], list[Path]], write_config: Callable[..., str]) -> Path:
    """Return the output folder of a run with two processes, each computing its batch in two parts."""
    folders = make_machines()
    results = run_ranks(folders, [write_config(accumulation=2), *COMMAND])
    assert [each.code for each in results] == [0, 0], results
    assert "training is done" in results[0].output
    assert results[1].output == ""
    assert not (folders[1] / "out").exists()
    return folders[0] / "out"


@pytest.mark.slow
def test_processes_and_accumulation_do_not_change_the_result(
    two_process_run: Path, make_machines: Callable[[], list[Path]], write_config: Callable[..., str]
) -> None:
    """Stage 1 equals that of the whole batch; stage 2 equals that of one process with as many parts."""
    folders, (single, accumulated) = make_machines(), make_machines()
    psnr_command = [*COMMAND, "--stage", "pretraining"]
    results = run_ranks(folders, [write_config(), *psnr_command])
    assert [each.code for each in results] == [0, 0], results
    run_single_process(single, [write_config(), *psnr_command])
    run_single_process(accumulated, [write_config(accumulation=4), *COMMAND])
    for one, other in ((single, folders[0]), (single, two_process_run.parent), (accumulated, two_process_run.parent)):
        difference = max_relative_difference(other / "out", one / "out")
        print(f"greatest difference: {difference:.1e}")
        assert difference < 1e-4
    # Log records cover all processes. Only the difference of the logits is meaningful, as explained above.
    for mine, theirs in zip(read_records(accumulated / "out"), read_records(two_process_run), strict=True):
        assert theirs.keys() == mine.keys()
        for record in (mine, theirs):
            if "real_logits" in record:
                record["difference"] = record.pop("real_logits") - record.pop("fake_logits")
        for name, value in mine.items():
            assert theirs[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-2)), name


@pytest.mark.slow
def test_options_beyond_the_paper_do_not_depend_on_processes(
    make_machines: Callable[[], list[Path]], write_config: Callable[..., str]
) -> None:
    options = OPTIONS_BEYOND_THE_PAPER["training"] | {"sched": "step", "d_lr": 6e-3, "val_datasets": []}
    logging = {"interval": 1, "tensorboard": False}
    folders, single = make_machines(), make_machines()[0]
    command = [*COMMAND, "--stage", "training"]
    results = run_ranks(folders, [write_config(training=options, logging=logging), *command])
    assert [each.code for each in results] == [0, 0], results
    run_single_process(single, [write_config(training=options, logging=logging, accumulation=2), *command])
    assert max_relative_difference(folders[0] / "out", single / "out") < 1e-4
    # Both runs pause in the same steps, by the same smoothed loss.
    theirs, mine = (
        load_run_files(folder / "out")["ESRGAN_x4_checkpoint"]["checkpoint"] for folder in (folders[0], single)
    )
    smoothed = [float(each["stage"]["pause"]["smoothed_loss"]) for each in (theirs, mine)]
    assert smoothed[0] == pytest.approx(smoothed[1], rel=1e-4)
    for folder in (folders[0], single):
        assert [record["d_paused"] for record in read_records(folder / "out")] == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(("stage", "done"), [("pretraining", 3), ("training", 2)])
@pytest.mark.slow
def test_only_the_first_process_needs_a_checkpoint_to_resume(
    two_process_run: Path,
    make_machines: Callable[[], list[Path]],
    write_config: Callable[..., str],
    stage: str,
    done: int,
) -> None:
    folders, command = make_machines(), [write_config(accumulation=2), *COMMAND, "--resume", "auto"]
    results = run_ranks(folders, command, None, (stage, done, press_ctrl_c))
    assert [each.code for each in results] == [130, 130], results
    assert f"stopped after step {done} of {stage}" in results[0].output
    assert not (folders[1] / "out").exists()
    results = run_ranks(folders, command)
    assert [each.code for each in results] == [0, 0], results
    assert f"checkpoint of {stage} at step {done}; resuming from there" in results[0].output
    assert_same_run(folders[0] / "out", two_process_run)


def assert_same_run(one: Path, other: Path) -> None:
    """Check that all files and log records of two runs are bit-identical."""
    files, reference = load_run_files(one), load_run_files(other)
    assert files.keys() == reference.keys()
    for name, content in files.items():
        assert not find_differences(comparable_content(content), comparable_content(reference[name])), name
    assert read_records(one) == read_records(other)


@pytest.mark.parametrize(
    ("act", "code", "failure"),
    [
        (kill, -signal.SIGKILL, "another process of this run has ended or cannot be reached ("),
        (fail, 1, f"process 1 on {socket.gethostname()} ended: ValueError: no such colour; "),
        (interrupt, 130, f"process 1 on {socket.gethostname()} ended: KeyboardInterrupt; "),
        (
            exhaust,
            1,
            f"process 1 on {socket.gethostname()} ended: cpu: out of memory; in the configuration, set accumulation ",
        ),
        (stop, -signal.SIGKILL, "process 1 has sent no heartbeat for 3 s; "),  # it hangs until the test kills it
    ],
)
@pytest.mark.slow
def test_a_lost_process_ends_the_whole_run(
    make_machines: Callable[[], list[Path]], write_config: Callable[..., str], act: Act, code: int, failure: str
) -> None:
    started = time.monotonic()
    folders = make_machines()
    survivor, lost = run_ranks(folders, [write_config(), *COMMAND], None, ("pretraining", 3, act))
    assert (survivor.code, lost.code) == (1, code)
    error = survivor.output.splitlines()[-1]
    assert error.startswith(f"error: {failure}")
    assert error.endswith("; fix this and run the same command with --resume auto to continue")
    assert "Traceback" not in survivor.output
    assert time.monotonic() - started < 30


def test_a_full_disk_on_the_first_process_ends_the_run(
    make_machines: Callable[[], list[Path]], write_config: Callable[..., str]
) -> None:
    folders = make_machines()
    (folders[0] / "out").mkdir()
    (folders[0] / "out/logs").write_bytes(b"")  # in the way
    results = run_ranks(folders, [write_config(), *COMMAND])
    assert [each.code for each in results] == [2, 1]
    assert results[0].output.splitlines()[-1].startswith("error: out/logs: expected a folder, got a file")
    failure = f"error: process 0 on {socket.gethostname()} ended: out/logs: expected a folder, got a file"
    assert results[1].output.startswith(failure)


def test_machines_with_different_images_or_configurations_are_reported(
    make_machines: Callable[[], list[Path]], write_config: Callable[..., str], write_images: Callable[..., Path]
) -> None:
    folders = make_machines()
    write_images(folders[1] / "data/Set5/GTmod12", 5, (48, 48))
    commands = [[write_config(seed=seed), *COMMAND] for seed in (3, 4)]
    host = socket.gethostname()
    for own, start, end in (
        (commands, "settings as process 0 on {host}, got seed: 3 → 4", "same configuration, options and VGG weights"),
        (
            commands[0],
            "images as process 0 on {host}, got pretraining train images.0.png: 44×40 px → 48×48 px",
            "more; use the same images",
        ),
    ):
        results = run_ranks(folders, own)
        assert [each.code for each in results] == [2, 2]
        for each in results:
            last = each.output.splitlines()[-1]
            assert last.startswith(f"error: {host}: expected the same {start.format(host=host)}")
            assert last.endswith(f"{end} on all machines")
        # Only sizes of images are compared after they are decoded.
        assert (folders[0] / "data/cache").exists() == (own is not commands)
    assert not (folders[0] / "out").exists()


def test_missing_images_are_reported_before_any_is_decoded(
    make_machines: Callable[[], list[Path]], write_config: Callable[..., str]
) -> None:
    folders = make_machines()
    images = sorted((folders[1] / "data/Set5/GTmod12").iterdir())
    for path in images[2:]:
        path.unlink()
    host = socket.gethostname()
    lacks = f"this machine lacks {len(images) - 2} images of process 0 on {host}, such as {images[2].name}"
    for result in run_ranks(folders, [write_config(), *COMMAND]):
        assert result.code == 2
        assert result.output.splitlines()[-1] == (
            f"error: {host}: training images: {lacks}; validation images: {lacks}; use the same images, in the same "
            f"order, on all machines"
        )
    assert not [path for folder in folders for path in (folder / "data").glob("cache*")]


LACKS_A = "this machine lacks 1 image of process 0 on first, such as a"
HAS_C = "has 1 image that process 0 on first lacks, such as c"


@pytest.mark.parametrize(
    ("pretraining", "training", "validation", "text"),
    [
        ("abb", "abb", "x", ""),
        ("b", "b", "x", "training images: this machine lacks 2 images of process 0 on first, such as a"),
        ("abbc", "abbc", "x", f"training images: this machine {HAS_C}"),
        ("bbc", "bbc", "x", f"training images: {LACKS_A}, and {HAS_C}"),
        ("bab", "bab", "x", "training images: this machine has them in another order than process 0 on first"),
        ("abb", "bb", "x", f"training images of the stage training: {LACKS_A}"),
        ("bb", "bb", "xc", f"training images: {LACKS_A}; validation images: this machine {HAS_C}"),
        (
            "bb",
            "abbc",
            "x",
            f"training images of the stage pretraining: {LACKS_A}; "
            f"training images of the stage training: this machine {HAS_C}",
        ),
    ],
)
def test_other_names_of_images_are_described_once(pretraining: str, training: str, validation: str, text: str) -> None:
    def names(*splits: str) -> dict[str, list[str]]:
        keys = ("pretraining train", "pretraining val", "training train", "training val")
        return {key: list(images) for key, images in zip(keys, splits, strict=True)}

    own = names(pretraining, validation, training, validation)
    described = agreement._describe_names("first", names("abb", "x", "abb", "x"), own)
    remedy = "; use the same images, in the same order, on all machines"
    assert described == (f"{socket.gethostname()}: {text}{remedy}" if text else "")


def test_other_pixels_on_a_machine_are_a_warning(
    make_machines: Callable[[], list[Path]], write_config: Callable[..., str]
) -> None:
    folders = make_machines()
    path = folders[1] / "data/Set5/GTmod12/3.png"
    Image.open(path).transpose(Image.Transpose.ROTATE_180).save(path)
    results = run_ranks(folders, [write_config(), *COMMAND, "--stage", "pretraining", "--max-steps", "1"])
    assert [each.code for each in results] == [0, 0], results
    warnings = [line for line in results[0].output.splitlines() if line.startswith("warning: ")]
    host = socket.gethostname()
    start = f"warning: {host}: 1 image (first: {path}) or their LR images have other pixels than those of process 0 on "
    assert [warning.startswith(start) for warning in warnings] == [True]


@pytest.mark.parametrize("missing", [False, True])
def test_machines_with_different_vgg_weights_are_reported(
    make_machines: Callable[[], list[Path]],
    write_config: Callable[..., str],
    vgg11_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: bool,
) -> None:
    folders, state = make_machines(), torch.load(vgg11_weights)
    monkeypatch.setenv("TORCH_HOME", "torch")
    for folder, sign in zip(folders, (1, -1), strict=True):
        path = folder / torchvision_weights_path("vgg11")
        path.parent.mkdir(parents=True)
        torch.save({name: sign * value for name, value in state.items()}, path)
    if missing:
        path.unlink()
    options = {"vgg_type": "vgg11", "layer_weights": {"conv2_1": 1.0}, "optional": True}
    results = run_ranks(folders, [write_config(perceptual_loss=options), *COMMAND])
    assert [each.code for each in results] == [2, 2]
    text = r"got VGG weights: [0-9a-f]{8} → " + ("none" if missing else "[0-9a-f]{8}")
    assert re.search(text, results[0].output.splitlines()[-1]), results


def test_processes_must_divide_the_batch_evenly(
    make_machines: Callable[[], list[Path]], write_config: Callable[..., str]
) -> None:
    folders = make_machines()
    results = run_ranks(folders, [write_config(batch_size=3), *COMMAND])
    assert [each.code for each in results] == [2, 2]
    expected = "batch_size: expected a multiple of the number of processes (2) × accumulation (1), got 3"
    assert expected in results[0].output
    assert not (folders[0] / "data/cache").exists()  # no image was decoded


def run_restarted_rank(folder: Path, arguments: list[str]) -> None:
    """Act as a process started by torchrun; the second process is killed once in each stage."""
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    port = int(os.environ["MASTER_PORT"])
    acts = [("pretraining", 3, kill), ("training", 2, kill), None] if rank == 1 else [None] * 3
    own = folder / f"{rank} {attempt}"
    own.mkdir()
    (own / "data").symlink_to(folder / "data")
    (own / "out").symlink_to(folder / "out")
    run_rank(rank, port, own, arguments, acts[attempt], {})


@pytest.mark.slow
def test_torchrun_restarts_a_run_that_lost_a_process(
    two_process_run: Path, make_machines: Callable[[], list[Path]], write_config: Callable[..., str]
) -> None:
    folder, _ = make_machines()
    (folder / "out").mkdir()
    # The same as torchrun --standalone --nproc-per-node 2 --max-restarts 2, without starting new interpreters.
    how = LaunchConfig(
        1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=2, start_method="forkserver"
    )
    elastic_launch(how, run_restarted_rank)(folder, [write_config(accumulation=2), *COMMAND, "--resume", "auto"])
    for attempt in range(2):
        error = (folder / f"0 {attempt}/output").read_text(encoding="utf-8").splitlines()[-1]
        assert error.startswith("error: another process of this run has ended or cannot be reached (")
    assert_same_run(folder / "out", two_process_run)


def test_the_first_process_waits_until_all_have_read_its_text() -> None:
    """Its end could be the end of the store, from which the others read."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    first, second = (heartbeat.Heartbeat(store, "run", rank, 2) for rank in range(2))
    read = threading.Event()

    class SlowStore:
        def __init__(self, store: Store) -> None:
            self.store = store

        def __getattr__(self, name: str) -> object:
            return getattr(self.store, name)

        def get(self, key: str) -> bytes:
            time.sleep(0.3)
            content = self.store.get(key)
            if key == "words 1":
                read.set()
            return content

    second.store = SlowStore(second.store)  # type: ignore[assignment]
    other = threading.Thread(target=second.all_gather_text, args=("words", "b"))
    other.start()
    assert first.all_gather_text("words", "a") == ["a", "b"]
    assert read.is_set()
    other.join()
    first.stop()
    second.stop()


NCCL = "NCCL error in: /pytorch/NCCLUtils.cpp:94, {kind} (run with NCCL_DEBUG=INFO for details), NCCL version 2.28.9"


def test_the_reason_of_nccl_is_shown() -> None:
    reason = "Net: Call to recv from 10.77.0.2 failed : Connection refused"
    text = (
        f"{NCCL.format(kind='remote process exited')}\nncclRemoteError: A call failed. See it.\nLast error:\n{reason}"
    )
    with (
        pytest.raises(LostProcessError, match=re.escape(f"cannot be reached ({reason});")),
        distributed._translate_errors(),
    ):
        raise torch.distributed.DistBackendError(text)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 68.00 MiB"),
        torch.distributed.DistBackendError(f"{NCCL}\nLast error:\nCuda failure 2 'out of memory'"),
        torch.AcceleratorError("CUDA error: unspecified launch failure"),
        torch.distributed.DistBackendError(f"{NCCL}\nLast error:\nCuda failure 700 'an illegal memory access'"),
    ],
)
def test_an_error_of_this_process_is_not_blamed_on_another(error: RuntimeError) -> None:
    with pytest.raises(type(error)), distributed._translate_errors():
        raise error


@pytest.mark.parametrize(("name", "current"), [("cuda:1", ["cuda:1"]), ("cuda", []), ("cpu", [])])
def test_the_chosen_gpu_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch, name: str, current: list[str]) -> None:
    """PyTorch pins memory through the current GPU, which would be the first one."""
    chosen: list[str] = []
    monkeypatch.setattr(distributed, "select_local_device", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(str(device)))
    with distributed.process_group(name) as device:
        assert (str(device), chosen) == (name, current)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"MASTER_ADDR": None},
            "MASTER_ADDR: expected an address, got ''; start the processes with torchrun, or unset",
        ),
        ({"RANK": "", "WORLD_SIZE": ""}, "RANK: expected a number, got ''"),
        ({"MASTER_PORT": "abc"}, "MASTER_PORT: expected a number, got 'abc'"),
        ({"RANK": "1"}, "RANK: expected a number less than WORLD_SIZE (1), got 1"),
        ({"MASTER_PORT": "99999"}, "MASTER_ADDR 127.0.0.1, MASTER_PORT 99999: this process cannot listen there ("),
        (
            {"MASTER_ADDR": "nohost.invalid"},
            "MASTER_ADDR nohost.invalid, MASTER_PORT 29511: this process cannot listen",
        ),
    ],
)
def test_a_wrong_environment_of_torchrun_is_one_error(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], text: str
) -> None:
    right = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    for name, value in (right | changes).items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rendezvous, "TIMEOUT", timedelta(seconds=1))
    with pytest.raises(EsrganError) as caught, distributed.process_group("cpu"):
        pass
    assert text in str(caught.value)


def test_processes_that_have_not_connected_are_to_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    for name, value in (rank_environment(0, port) | {"TORCHELASTIC_USE_AGENT_STORE": "False"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rendezvous, "TIMEOUT", timedelta(seconds=1))
    with pytest.raises(EsrganError) as caught, distributed.process_group("cpu"):
        pass
    assert f"MASTER_PORT {port}: not all of the 2 processes have connected; " in str(caught.value)
    assert str(caught.value).endswith("; start the other processes, and check that they can reach this address")


def test_an_occupied_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        for name, value in (rank_environment(0, port) | {"TORCHELASTIC_USE_AGENT_STORE": "False"}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(EsrganError) as caught, distributed.process_group("cpu"):
            pass
    text = f"MASTER_ADDR 127.0.0.1, MASTER_PORT {port}: this process cannot listen there ("
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith("; correct them, or choose a free port, on all machines")
