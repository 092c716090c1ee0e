"""Locks on files."""

import multiprocessing
import os
import subprocess
import sys

import pytest

from esrgan.errors import EsrganError
from esrgan.locks import lock


def test_a_lock_excludes_others_until_it_is_closed(tmp_path):
    with lock(tmp_path / "x", "a run"), pytest.raises(EsrganError, match=r"^another run; wait for it to finish"):
        lock(tmp_path / "x", "another run")
    lock(tmp_path / "x", "a run").close()


@pytest.mark.slow
def test_waiting_for_a_lock_says_so_and_ends_with_its_holder(tmp_path):
    code = (
        "import sys; from pathlib import Path; from esrgan import console, locks\n"
        "with console.show_messages(): locks.lock(Path(sys.argv[1]), 'it works', wait=True)"
    )
    with lock(tmp_path / "x", ""):
        command = [sys.executable, "-c", code, str(tmp_path / "x")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "it works; waiting for it\n"
        assert process.poll() is None
    assert process.wait(10) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_forked_processes_do_not_hold_the_lock(tmp_path):
    held, context = lock(tmp_path / "x", "a run"), multiprocessing.get_context("fork")
    is_running, may_end = context.Event(), context.Event()
    process = context.Process(target=lambda: (is_running.set(), may_end.wait(30)))
    process.start()
    assert is_running.wait(10)
    try:
        with pytest.raises(EsrganError):
            lock(tmp_path / "x", "a run")  # the child has closed its copy without unlocking
        held.close()
        lock(tmp_path / "x", "a run").close()
    finally:
        may_end.set()
        process.join()


@pytest.mark.usefixtures("windows")
def test_locks_of_windows_exclude_others(tmp_path):
    with lock(tmp_path / "x", "a run"), pytest.raises(EsrganError, match=r"^another run; wait for it to finish"):
        lock(tmp_path / "x", "another run")
    lock(tmp_path / "x", "a run").close()
