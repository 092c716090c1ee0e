"""The main parser with versions and commands."""

import argparse
import contextlib
import errno
import io
import os
import subprocess
import sys
import threading
import warnings
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from esrgan.cli import main, make_parser, process, spinning
from tests.helpers.image_folders import write_files
from tests.helpers.models import make_model


def test_version_names_pytorch_and_cuda(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    cuda = torch.version.cuda or "none"
    expected = f"esrgan {version('esrgan')}, torch {torch.__version__}, CUDA {cuda}, Python {sys.version.split()[0]}\n"
    assert capsys.readouterr().out == expected


def test_full_parser_contains_every_command():
    parser = make_parser(with_arguments=True)
    options = {"inference": "alpha", "bulk": "address", "interpolate": "mix", "export": "half", "demo": "port"}
    for command, option in options.items():
        with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
            parser.parse_args([command, "--help"])
        assert f"--{option}" in text.getvalue()


def run_module(*arguments, environment=(), **settings):
    command = [sys.executable, "-m", "esrgan", *arguments]
    return subprocess.run(command, env=os.environ | dict(environment), stderr=subprocess.PIPE, check=False, **settings)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_consoles_that_lack_characters_show_escapes(arguments):
    result = run_module(*arguments, environment={"PYTHONIOENCODING": "cp437"}, stdout=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (0, b"")
    assert rb"ncnn, \u2026" in result.stdout


def test_errors_on_consoles_that_lack_characters_show_escapes():
    result = run_module("č", environment={"PYTHONIOENCODING": "cp437"}, stdout=subprocess.PIPE)
    assert result.returncode == 2
    assert result.stderr.startswith(rb"error: \u010d: no such command")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["models", "--help"]], ids=" ".join)
def test_a_full_disk_for_help_and_versions_is_one_line(arguments, unbuffered):
    with Path("/dev/full").open("wb") as full:
        result = run_module(*arguments, environment={"PYTHONUNBUFFERED": unbuffered}, stdout=full)
    assert result.stderr == b"error: standard output: cannot be written: No space left on device\n"
    assert result.returncode == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_of_help_that_has_gone_is_no_error_message(unbuffered):
    read, write = os.pipe()
    os.close(read)
    result = run_module("--help", environment={"PYTHONUNBUFFERED": unbuffered}, stdout=write)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, b"")


def test_errors_of_other_files_are_not_blamed_on_standard_output(capsys):
    def fail(args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))  # as reading does, without the name of the file

    with pytest.raises(OSError, match="Input/output error"):
        process.run(SimpleNamespace(make_parser=argparse.ArgumentParser, run=fail), [])
    assert capsys.readouterr().err == ""


def test_warnings_of_pillow_are_not_shown():
    with warnings.catch_warnings(record=True, action="always") as shown:

        def warn(args):
            for module in ("PIL.TiffImagePlugin", "other"):
                warnings.warn_explicit("Corrupt EXIF data", UserWarning, "file.py", 1, module)
            return 0

        assert process.run(SimpleNamespace(make_parser=argparse.ArgumentParser, run=warn), []) == 0
    assert len(shown) == 1


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}),
        ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        ({"KMP_BLOCKTIME": "infinite"}, {"KMP_BLOCKTIME": "infinite"}),
    ],
)
def test_waiting_threads_sleep_soon_unless_the_user_decides(monkeypatch, user, expected):
    names = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
    monkeypatch.setattr(os, "environ", {key: value for key, value in os.environ.items() if key not in names} | user)
    found = {}

    def look(args):
        found.update({name: os.environ[name] for name in names if name in os.environ})
        return 0

    assert process.run(SimpleNamespace(make_parser=argparse.ArgumentParser, run=look), []) == 0
    assert found == expected


@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU's OpenMP")
def test_more_threads_than_cpus_exist_while_other_programs_use_the_cpus():
    code = """
import os, sys, threading, time
from esrgan.cli import process, spinning

class FreeCpus:
    def count(self):
        return free

def wait_until(condition):
    end = time.monotonic() + 20
    while not condition(len(os.listdir("/proc/self/task"))):
        assert time.monotonic() < end
        time.sleep(0.01)

spinning.limit_spinning()
spinning.watch_load, free = FreeCpus, 2
with process.importing():
    import torch
    from esrgan import machine
    machine.cpu_count = lambda: 2
    torch.set_num_threads(2)
    spinning._WATCH_S = 0.01
before = len(os.listdir("/proc/self/task"))
for _ in range(2):
    free = 1
    wait_until(lambda count: count >= before + len(os.sched_getaffinity(0)))
    free = 2
    wait_until(lambda count: count <= before + 1)
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["GOMP_SPINCOUNT"] = "10000"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU's OpenMP")
def test_program_can_end_while_threads_are_added():
    code = """
import threading, time, torch
from esrgan import machine
from esrgan.cli import spinning

torch.set_num_threads(2)
machine.cpu_count = lambda: 2
spinning.follow_load(machine.FreeCpus())
zeros, begun = torch.zeros, threading.Event()
torch.zeros = lambda _: begun.set() or zeros(2**25)
threading.Thread(target=spinning._keep_threads, args=(threading.Event(),), daemon=True).start()
begun.wait()
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"GOMP_SPINCOUNT": "10000"})


def _fail(*_, **__):
    raise FileNotFoundError("/proc/stat")


def test_commands_run_where_the_system_shows_no_load(monkeypatch, tmp_path):
    monkeypatch.setattr("esrgan.machine.FreeCpus", _fail)
    assert spinning.watch_load() is None
    write_files(tmp_path / "a.png")
    assert (
        main(["inference", str(tmp_path / "a.png"), "-m", str(make_model(tmp_path / "model.pth")), "--device", "cpu"])
        == 0
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU's OpenMP")
def test_no_threads_are_added_where_the_system_allows_no_more(monkeypatch):
    started = []

    class Thread(threading.Thread):
        def start(self):
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(self)
            super().start()

    monkeypatch.setattr(spinning, "_WATCH_S", 0.01)
    monkeypatch.setattr(spinning.threading, "Thread", Thread)
    monkeypatch.setattr(spinning, "_keep_threads", lambda _: pytest.fail("OpenMP would end the program"))
    answers = iter([True])
    spinning._follow(lambda: next(answers), 2)
    assert len(started) == 2
    assert not any(thread.is_alive() for thread in started)


def test_no_command_loads_pytorch_before_the_process_is_set_up():
    code = (
        "import sys, importlib; from esrgan.cli import COMMANDS, process;"
        "[importlib.import_module(f'esrgan.cli.{name}').make_parser() for name in COMMANDS];"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_closed_standard_output_and_error_are_no_error(tmp_path):
    write_files(tmp_path / "ü.png")
    model = make_model(tmp_path / "model.pth")
    command = f"{sys.executable} -m esrgan inference --device cpu -m {model} {tmp_path / 'ü.png'} >&- 2>&- <&-"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert subprocess.run(command, shell=True, check=False, env=os.environ | ascii_only).returncode == 0
    assert (tmp_path / "ü_sr.png").exists()
