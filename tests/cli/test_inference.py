import gc
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from esrgan import Upscaler, files, images, rendezvous
from esrgan.cli import inference as inference_command
from esrgan.cli import main as esrgan
from esrgan.cli import upscaling_options
from esrgan.cli.process import importing
from esrgan.inference.files import FileOptions
from esrgan.interpolation import blend
from esrgan.weights import load_generator
from tests.helpers.image_folders import read_files, write_files
from tests.helpers.models import make_model, pixels, run
from tests.helpers.runs import rank_environment

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(0)


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model.pth")


def test_a_bad_file_does_not_stop_a_folder(model, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    write_files(folder / "a b.png", folder / "deeper/ü.jpg")
    (folder / "bad.png").write_bytes(b"not an image")
    assert run(inference_command, "-m", model, "-o", out, "--device", "cpu", folder) == 1
    assert sorted(read_files(out)) == ["a b_sr.png", "deeper/ü_sr.jpg"]
    assert images.read_pixels(out / "a b_sr.png", 3).shape == (12, 10, 3)
    printed = capsys.readouterr()
    assert "2 of 3 images upscaled, 1 failed" in printed.out
    assert "RRDBNet ×2 8/4/1" in printed.out
    assert "megapixels/s" in printed.out
    assert printed.err.startswith(f"error: {folder / 'bad.png'}: expected")
    assert "Traceback" not in printed.err


def test_nonfinite_network_output_is_not_written(tmp_path, capsys):
    write_files(tmp_path / "a.png", tmp_path / "b.png")
    model = make_model(tmp_path / "model.pth")
    content = torch.load(model)
    content["params"]["conv_last.weight"].fill_(3e38)
    torch.save(content, model)
    assert run(inference_command, "-m", model, tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    message = ": the network's output contains NaN or infinity; its weights are damaged"
    assert [line.partition(message)[0] for line in lines] == [
        f"error: {tmp_path}/a.png",
        f"error: {tmp_path}/b.png",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "model.pth"]


def test_existing_outputs_fail_unless_skipped_or_overwritten(model, tmp_path, capsys):
    write_files(tmp_path / "a.png", tmp_path / "b.png")
    assert run(inference_command, "-m", model, tmp_path / "a.png") == 0
    before = (tmp_path / "a_sr.png").stat()
    capsys.readouterr()
    assert run(inference_command, "-m", model, tmp_path) == 1
    printed = capsys.readouterr()
    assert printed.err == (
        f"error: {tmp_path}/a_sr.png: already exists; use --overwrite to replace it or --skip-existing to skip it\n"
    )
    assert "1 of 2 images upscaled, 1 failed" in printed.out
    assert f"skipped (output of an earlier run): {tmp_path}/a_sr.png\n" in printed.out
    assert run(inference_command, "-m", model, "--skip-existing", tmp_path) == 0
    assert "0 of 2 images upscaled, 2 skipped (already exist)\n" in capsys.readouterr().out
    assert (tmp_path / "a_sr.png").stat() == before
    assert run(inference_command, "-m", model, "--overwrite", tmp_path) == 0
    assert (tmp_path / "a_sr.png").stat().st_mtime_ns != before.st_mtime_ns
    with pytest.raises(SystemExit) as stop:
        run(inference_command, "-m", model, "--overwrite", "--skip-existing", tmp_path)
    assert stop.value.code == 2


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_outputs(model, tmp_path):
    """After SIGKILL at several moments, the last run completes the outputs of an uninterrupted run."""
    folder, whole, out = tmp_path / "in", tmp_path / "whole", tmp_path / "out"
    write_files(*(folder / f"{i % 3}/{i}.png" for i in range(12)), size=(40, 40))
    assert run(inference_command, "-m", model, "-o", whole, folder) == 0
    command = [
        sys.executable,
        ROOT / "inference.py",
        "-m",
        model,
        "-o",
        out,
        "--skip-existing",
        "--device",
        "cpu",
        folder,
    ]
    counts = []
    for moment in (1, 5, 9):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
        while len([*out.rglob("*_sr.png")]) < moment and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(len([*out.rglob("*_sr.png")]))
    assert counts[0] < 12
    (out / "0/.esrgan-00.tmp").write_bytes(b"half an image")
    with files.atomic_write(out / "0/other.png", overwrite=False):  # as if another program were writing
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    (out / "0/other.png").unlink()
    assert read_files(out) == read_files(whole)


@pytest.mark.slow
def test_torchrun_processes_share_files_and_wait_for_each_other(model, tmp_path):
    write_files(*(tmp_path / f"in/{i}.png" for i in range(1, 7)), size=(60, 60))
    (tmp_path / "in/0.png").write_bytes(b"")  # the first file of the first process, which fails at once
    (tmp_path / "in/2.png").unlink()
    (tmp_path / "in/4.png").unlink()
    (tmp_path / "in/6.png").unlink()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "inference.py"]
    command += ["-m", model, "-o", tmp_path / "out", "--device", "cpu", tmp_path / "in"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert process.returncode == 1
    assert sorted(read_files(tmp_path / "out")) == ["1_sr.png", "3_sr.png", "5_sr.png"]
    assert "1 of 2 images upscaled, 1 failed" in process.stdout
    assert "2 of 2 images upscaled" in process.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": ""}, "RANK: expected a number, got ''; start the processes with torchrun, or unset RANK and WORLD_"),
        ({"RANK": "2"}, "RANK: expected a number less than WORLD_SIZE (2), got 2; start the processes with torchrun"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR: expected an address, got ''; start the processes with torchrun, or un"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT: expected a number, got 'x'; start the processes with torchrun, or unse"),
        (
            {"RANK": "1"},
            "MASTER_ADDR 127.0.0.1, MASTER_PORT {port}: nothing can be reached there (Connection",
        ),
        ({}, "MASTER_ADDR 127.0.0.1, MASTER_PORT {port}: not all of the 2 processes have connected; "),
    ],
)
def test_processes_that_cannot_connect_are_one_line(model, tmp_path, monkeypatch, capsys, changes, message):
    write_files(tmp_path / "a.png")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    right = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in (right | changes).items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rendezvous, "TIMEOUT", timedelta(seconds=1))
    assert run(inference_command, "-m", model, "--device", "cpu", tmp_path / "a.png") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {message.format(port=port)}")


@pytest.mark.slow
def test_processes_must_find_the_same_images(model, tmp_path):
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    write_files(tmp_path / "0/a.png", tmp_path / "0/b.png", tmp_path / "1/b.png")
    command = [sys.executable, "inference.py", "-m", model, "-o", tmp_path / "out", "--device", "cpu"]
    processes = [
        subprocess.Popen(
            [*command, tmp_path / str(rank)],
            env=os.environ | rank_environment(rank, store.port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank in range(2)
    ]
    for process in processes:
        error = process.communicate()[1]
        assert "the 2 processes have found different images; give all of them folders" in error, error
        assert process.returncode == 2, error
    assert not list((tmp_path / "out").iterdir())


def test_connecting_does_not_count_as_time_of_upscaling(model, tmp_path, monkeypatch):
    write_files(tmp_path / "a.png")
    connected, begins, add = [], [], upscaling_options.Outcomes.add

    @contextmanager
    def connect(*_):
        connected.append(time.perf_counter())
        yield

    def note_begin(shown, *values, **options):
        begins.append(shown.begin)
        add(shown, *values, **options)

    monkeypatch.setattr(inference_command, "wait_for_all_processes", connect)
    monkeypatch.setattr(upscaling_options.Outcomes, "add", note_begin)
    assert run(inference_command, "-m", model, "--device", "cpu", tmp_path / "a.png") == 0
    assert begins > connected


_RANK = """
import os, sys
from datetime import timedelta
from esrgan import rendezvous
from esrgan.cli.inference import wait_for_all_processes
from esrgan.cli.process import catch_errors
from esrgan.console import show_messages
rendezvous._QUIET_S = float(sys.argv[1])
agree_on_key = rendezvous.agree_on_key
def agree_and_shorten(*arguments):
    key = agree_on_key(*arguments)
    rendezvous.TIMEOUT = timedelta(seconds=2)  # which is not for waiting until the others are done
    return key
rendezvous.agree_on_key = agree_and_shorten
def work():
    with wait_for_all_processes(2, "this command"):
        print("connected", flush=True)
        if os.environ["RANK"] == "1":
            sys.stdin.readline()
    return 0
with show_messages():
    code = catch_errors(work)
sys.exit(code)
"""


@pytest.mark.parametrize("action", ["end", "kill", "interrupt"])
def test_processes_wait_until_all_are_done(action):
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    command = [sys.executable, "-c", _RANK, "100"]
    first, second = (
        subprocess.Popen(
            command,
            env=os.environ | rank_environment(rank, store.port),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank in range(2)
    )
    assert [process.stdout.readline() for process in (first, second)] == ["connected\n"] * 2
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(3 if action == "end" else 0.3)
    if action == "kill":
        second.kill()
    elif action == "interrupt":
        first.send_signal(signal.SIGINT)
        first.wait(10)
    _, error = first.communicate("\n") if action != "end" else (second.communicate("\n"), first.communicate()[1])
    second.kill()
    second.communicate()
    assert (first.returncode, error.strip()) == {
        "end": (0, ""),
        "kill": (
            2,
            "error: another process has ended before it was done; correct its error, then this command resumes",
        ),
        "interrupt": (130, "interrupted"),
    }[action]


@pytest.mark.parametrize("has_agent", [False, True])
def test_a_process_that_waits_for_others_can_be_interrupted(has_agent):
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = store.port if has_agent else server.getsockname()[1]
    environment = rank_environment(0, port) | {"TORCHELASTIC_USE_AGENT_STORE": str(has_agent)}
    process = subprocess.Popen(
        [sys.executable, "-c", _RANK, "0.1"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout.readline() == "waiting for the other processes\n"
        process.send_signal(signal.SIGINT)
        assert (process.communicate(timeout=10)[1], process.returncode) == ("interrupted\n", 130)
    finally:
        process.kill()


@pytest.mark.slow
def test_unwritable_stdout_does_not_stop_the_run(model, tmp_path):
    write_files(*(tmp_path / f"{i}.png" for i in range(3)))
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, ROOT / "inference.py", "-m", model, "--device", "cpu", tmp_path]
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert len([*tmp_path.glob("*_sr.png")]) == 3
    assert "Traceback" not in process.stderr


def test_a_full_disk_for_printed_results_is_one_line(model):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "esrgan", "info", model]
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert process.returncode == 1
    assert process.stderr == "error: standard output: cannot be written: No space left on device\n"


@pytest.mark.slow
def test_names_the_terminal_cannot_encode_are_escaped(model, tmp_path):
    write_files(tmp_path / "图.png", tmp_path / "b.png")
    command = [sys.executable, ROOT / "inference.py", "-m", model, "--device", "cpu", tmp_path]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    output = subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    assert rb"\u56fe_sr.png" in output
    assert len([*tmp_path.glob("*_sr.png")]) == 2


def test_newline_in_a_name_stays_on_one_progress_line(model, tmp_path, capsys):
    write_files(tmp_path / "a\nb.png")
    assert run(inference_command, "-m", model, tmp_path) == 0
    assert f"1/1 {tmp_path}/a?b_sr.png " in capsys.readouterr().out


def test_ctrl_c_during_import_prints_one_line(model, tmp_path):
    """A KeyboardInterrupt inside a module turns into other errors, such as a RecursionError in numpy."""
    write_files(tmp_path / "a.png")
    (tmp_path / "torch.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except BaseException:\n    raise RecursionError('deep')\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, ROOT / "inference.py", "-m", model, tmp_path / "a.png"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ([], "the same command with --skip-existing resumes"),
        (["--skip-existing"], "the same command resumes"),
        (["--overwrite"], "the same command with --skip-existing in place of --overwrite resumes"),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("default_signals")
def test_an_interruption_says_how_many_are_done_and_how_to_resume(
    model, tmp_path, capsys, monkeypatch, options, remedy, number
):
    write_files(*(tmp_path / f"in/{i}.png" for i in range(4)))
    upscale, calls = Upscaler.__call__, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return upscale(*arguments)

    monkeypatch.setattr(Upscaler, "__call__", interrupted)
    assert run(inference_command, "-m", model, *options, "-o", tmp_path / "out", tmp_path / "in") == 130
    assert capsys.readouterr().err == f"interrupted: 2 of 4 images upscaled; {remedy}\n"
    assert sorted(read_files(tmp_path / "out")) == ["0_sr.png", "1_sr.png"]
    assert run(inference_command, "-m", model, "--skip-existing", "-o", tmp_path / "out", tmp_path / "in") == 0
    assert "2 of 4 images upscaled, 2 skipped" in capsys.readouterr().out


def test_progress_of_an_image_is_on_standard_error_only(model, tmp_path, capsys, monkeypatch):
    write_files(tmp_path / "a.png", tmp_path / "b.png")
    monkeypatch.setattr("esrgan.console.PLAIN_INTERVAL_S", 0)
    assert run(inference_command, "-m", model, tmp_path / "a.png", tmp_path / "b.png") == 0
    printed = capsys.readouterr()
    assert f"0/2 0%: {tmp_path}/a_sr.png" in printed.err
    assert f"2/2 100%: {tmp_path}/b_sr.png" in printed.err
    assert "%" not in printed.out


def test_suffix_is_appended_to_the_names_of_outputs(model, tmp_path, capsys):
    write_files(tmp_path / "a.png", tmp_path / "deep/b.png", tmp_path / "a_sr.png")
    assert run(inference_command, "-m", model, "--suffix", "_v1.5", tmp_path) == 0
    assert run(inference_command, "-m", model, "--suffix", "_v1.5", "--skip-existing", tmp_path) == 0
    assert "0 of 2 images upscaled, 2 skipped" in capsys.readouterr().out
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert names == {"a.png", "a_sr.png", "a_v1.5.png", "deep/b.png", "deep/b_v1.5.png"}
    assert run(inference_command, "-m", model, "--suffix", "", "-o", tmp_path / "out", tmp_path / "deep") == 0
    assert sorted(read_files(tmp_path / "out")) == ["b.png", "b_v1.5.png"]


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_no_suffix_never_overwrites_an_input(model, tmp_path, capsys, overwrite):
    folder = tmp_path / "in"
    write_files(folder / "a.png", folder / "b.webp")
    before = read_files(folder)
    assert run(inference_command, "-m", model, "--suffix", "", *overwrite, folder) == 2
    assert "outputs without a suffix would overwrite their inputs" in capsys.readouterr().err
    assert run(inference_command, "-m", model, "--suffix", "", *overwrite, "-o", folder, folder) == 1
    assert capsys.readouterr().err.count("its output would overwrite it; choose another name, suffix or folder") == 2
    (tmp_path / "link").symlink_to(folder)
    assert run(inference_command, "-m", model, "--suffix", "", *overwrite, "-o", tmp_path / "link", folder) == 1
    assert read_files(folder) == before
    assert run(inference_command, "-m", model, "--suffix", "", *overwrite, "--format", "webp", folder) == 1
    assert sorted(read_files(folder)) == ["a.png", "a.webp", "b.webp"]
    assert {name: read_files(folder)[name] for name in before} == before


def test_output_file_never_overwrites_the_input(model, tmp_path, capsys):
    write_files(tmp_path / "a.png")
    before = read_files(tmp_path)
    assert run(inference_command, "-m", model, "--overwrite", "-o", tmp_path / "a.png", tmp_path / "a.png") == 1
    assert "a.png: its output would overwrite it; choose another name" in capsys.readouterr().err
    assert read_files(tmp_path) == before


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("names", [("a.png", "a.jpg"), (".",), ("-o", ".", ".")])
def test_originals_that_differ_in_format_are_never_overwritten(model, tmp_path, capsys, monkeypatch, overwrite, names):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "a.png", tmp_path / "a.jpg")
    before = read_files(tmp_path)
    command = ["-m", model, "--suffix", "", "--format", "jpg", *names]
    assert run(inference_command, *command, *overwrite) == 1
    printed = capsys.readouterr()
    assert "error: a.png: its output would overwrite a.jpg; choose another suffix or folder" in printed.err
    assert "skipped (named like the output of another image): a.jpg" in printed.out
    assert run(inference_command, *command, "--skip-existing") == 0
    assert read_files(tmp_path) == before


def test_no_suffix_in_another_format_resumes(model, tmp_path, capsys):
    write_files(tmp_path / "in/a.png", tmp_path / "in/b.jpg")
    command = ["-m", model, "--suffix", "", "--format", "webp", "--skip-existing", tmp_path / "in"]
    assert run(inference_command, *command) == 0
    first = read_files(tmp_path / "in")
    assert sorted(first) == ["a.png", "a.webp", "b.jpg", "b.webp"]
    assert run(inference_command, *command) == 0
    assert "0 of 2 images upscaled, 2 skipped" in capsys.readouterr().out
    assert read_files(tmp_path / "in") == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suffix", "a/b"], "expected a part of a file name, got 'a/b'"),
        (["--suffix", "x", "-o", "result.png"], "--suffix: cannot be combined with -o FILE"),
    ],
)
def test_suffixes_that_make_no_sense_are_refused(model, tmp_path, capsys, options, message):
    write_files(tmp_path / "a.png")
    try:
        code = run(inference_command, "-m", model, *options, tmp_path / "a.png")
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_signal_handler_is_restored_after_import(foreground_signals):
    with importing():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    with importing():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_commands_run_in_any_thread(model, tmp_path):
    """Python lets only the main thread set signal handlers."""
    write_files(tmp_path / "a.png")
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(run, inference_command, "-m", model, tmp_path / "a.png").result() == 0


def test_nothing_is_collected_during_the_first_import(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    for is_first in (True, False):
        with importing():
            assert gc.isenabled() is not is_first
            sys.modules["torch"] = torch
        assert gc.isenabled()


def test_unwritable_outputs_are_reported_before_upscaling(model, tmp_path, capsys, monkeypatch):
    write_files(tmp_path / "a.png")
    monkeypatch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("the image was upscaled"))
    (tmp_path / "file").write_bytes(b"")
    assert run(inference_command, "-m", model, "-o", tmp_path / "file", tmp_path / "a.png") == 2
    assert "file: expected a folder, got a file; choose another folder" in capsys.readouterr().err
    (tmp_path / "a_sr.png").mkdir()
    for option in ("--overwrite", "--skip-existing"):
        assert run(inference_command, "-m", model, option, tmp_path / "a.png") == 1
        assert "a_sr.png: is a folder; remove it or choose another output folder" in capsys.readouterr().err
    (tmp_path / "a_sr.png").rmdir()
    (tmp_path / "a_sr.png").symlink_to(tmp_path / "nowhere")
    assert run(inference_command, "-m", model, "--skip-existing", tmp_path / "a.png") == 1
    assert "a_sr.png: is a link to a file that does not exist; remove the link" in capsys.readouterr().err
    with pytest.raises(ValueError, match="quality"):
        FileOptions(quality=0)


def test_format_quality_and_outscale_change_the_output(model, tmp_path, capsys):
    write_files(tmp_path / "a.png")
    deep = tmp_path / "deep.png"
    images.write_image(deep, images.ImageData((pixels(6, 5, 3).astype(np.uint16) * 257,)))
    assert run(inference_command, "-m", model, "--format", "jpg", "--outscale", "3", tmp_path) == 0
    assert images.read_image(tmp_path / "a_sr.jpg").frames[0].shape == (18, 15, 3)
    assert "deep_sr.jpg: " in capsys.readouterr().out  # a note reports the reduced bit depth
    sizes = []
    for quality in (5, 100):
        assert (
            run(inference_command, "-m", model, "--format", "webp", "--quality", quality, "--overwrite", tmp_path) == 0
        )
        sizes.append((tmp_path / "a_sr.webp").stat().st_size)
    assert sizes[0] < sizes[1]


def test_alpha_upscales_with_the_blended_model(model, tmp_path):
    psnr, gan = make_model(tmp_path / "psnr.pth", seed=1), make_model(tmp_path / "gan.safetensors", seed=2)
    write_files(tmp_path / "a.png")
    assert run(inference_command, "-m", gan, "--psnr-model-path", psnr, "--alpha", "0.3", tmp_path / "a.png") == 0
    network = blend(load_generator(psnr), load_generator(gan), 0.3).build()
    expected = Upscaler(network, torch.device("cpu"))(images.read_pixels(tmp_path / "a.png", 3))
    np.testing.assert_array_equal(images.read_pixels(tmp_path / "a_sr.png", 3), expected)


def test_options_reach_the_upscaler(model, tmp_path):
    write_files(tmp_path / "a.png")
    assert run(inference_command, "-m", model, "--self-ensemble", "--precision", "fp32", tmp_path / "a.png") == 0
    expected = Upscaler.from_file(model, "cpu", "fp32", self_ensemble=True)(images.read_pixels(tmp_path / "a.png", 3))
    np.testing.assert_array_equal(images.read_pixels(tmp_path / "a_sr.png", 3), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "0.5"], "has no partner to blend with"),
        (["--psnr-model-path", "x.pth"], "--psnr-model-path: needs --alpha"),
        (["--alpha", "2", "--psnr-model-path", "x.pth"], "expected a number from 0 to 1, got 2"),
        (["--quality", "101"], "from 1 to 100, got 101"),
        (["--outscale", "0"], "above 0 and at most 64, got 0"),
        (["--outscale", "nan"], "above 0 and at most 64, got nan"),
        (["--width", "9" * 5000], "expected an integer from 1 to 1000000000, got 9"),
        (["--format", "pdf"], "invalid choice: 'pdf'"),
    ],
)
def test_bad_options_are_rejected_in_one_line(model, tmp_path, capsys, options, message):
    write_files(tmp_path / "a.png")
    try:
        code = run(inference_command, "-m", model, *options, tmp_path / "a.png")
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "model.pth"]


def test_output_next_to_input_needs_overwrite(model, tmp_path, capsys):
    images.write_pixels(tmp_path / "a.png", pixels(6, 5, 3))
    assert run(inference_command, "-m", model, tmp_path / "a.png") == 0
    first = (tmp_path / "a_sr.png").read_bytes()
    images.write_pixels(tmp_path / "a.png", pixels(6, 5, 3), overwrite=True)
    assert run(inference_command, "-m", model, tmp_path / "a.png") == 1
    assert (tmp_path / "a_sr.png").read_bytes() == first
    assert "use --overwrite to replace it" in capsys.readouterr().err
    assert run(inference_command, "-m", model, "--overwrite", tmp_path) == 0
    assert (tmp_path / "a_sr.png").read_bytes() != first
    assert not (tmp_path / "a_sr_sr.png").exists()


def test_profile_and_exif_are_kept(model, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    Image.fromarray(pixels(6, 8, 3)).save(tmp_path / "a.jpg", exif=exif, icc_profile=profile)
    assert run(inference_command, "-m", model, tmp_path / "a.jpg") == 0
    with Image.open(tmp_path / "a_sr.jpg") as image:
        assert image.size == (12, 16)  # rotated once: 8×6 px with orientation 6 is 6×8 px upright
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "Maker"
        assert image.info["icc_profile"] == profile


def test_every_frame_is_upscaled_at_its_bit_depth(model, tmp_path):
    frames = [Image.fromarray(pixels(6, 8, 3) // 128 * 255) for _ in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=[30, 50, 70], lossless=True)
    images.write_image(tmp_path / "b.png", images.ImageData((RNG.integers(0, 65536, (6, 8, 3), np.uint16),)))
    assert run(inference_command, "-m", model, tmp_path) == 0
    moving, deep = images.read_image(tmp_path / "a_sr.webp"), images.read_image(tmp_path / "b_sr.png")
    assert [frame.shape for frame in moving.frames] == [(12, 16, 3)] * 3
    assert moving.delays_ms == (30, 50, 70)
    assert deep.frames[0].shape == (12, 16, 3)
    assert deep.frames[0].dtype == np.uint16


def test_too_large_output_is_reported_before_upscaling(model, tmp_path, capsys, monkeypatch):
    images.write_pixels(tmp_path / "a.webp", pixels(1, 9000, 3))
    monkeypatch.setattr(Upscaler, "__call__", lambda *_: pytest.fail("the image was upscaled"))
    assert run(inference_command, "-m", model, tmp_path / "a.webp") == 1
    assert "at most 16383 pixels per side for WEBP, got 18000×2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "nowhere.pth", "PHOTO"], "no such file"),
        (["-m", "PHOTO", "PHOTO"], "got a PNG image; pass the model first"),
        (["-m", "MODEL", "nowhere.png"], "nowhere.png"),
        (["-m", "MODEL", "--device", "cuda:77", "PHOTO"], "device cuda:77"),
        (["-m", "MODEL", "--device", "cpu", "--precision", "fp16", "PHOTO"], "not supported on a CPU; use bf16"),
    ],
)
def test_bad_input_prints_one_line_and_exits_2(model, tmp_path, capsys, arguments, message):
    photo = tmp_path / "photo.png"
    images.write_pixels(photo, pixels(4, 4, 3))
    places = {"MODEL": model, "PHOTO": photo}
    assert run(inference_command, *[places.get(argument, argument) for argument in arguments]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert not (tmp_path / "photo_sr.png").exists()


def test_help_has_examples(capsys):
    for name in ("train", "test", "inference", "interpolate"):
        with pytest.raises(SystemExit) as stop:
            esrgan([name, "--help"])
        assert stop.value.code == 0
        assert "examples:\n  " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        esrgan(["upscale"])
    assert stop.value.code == 2
