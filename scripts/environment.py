"""The project's own environment, ``.venv``, made with nothing but Python."""

import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
PYTHON = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(extra: str = "") -> None:
    """Make ``.venv`` if need be and install the project there, as it is, with what it needs.

    Args:
        extra: Such as "[dev]", what is to be installed besides.
    """
    if sys.version_info < (3, 11):  # noqa: UP036  whoever runs this has not installed the project yet
        sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    if not PYTHON.exists():
        print(f"making the environment {FOLDER}", flush=True)
        try:
            venv.create(FOLDER, with_pip=True)
        except BaseException as error:
            PYTHON.unlink(missing_ok=True)  # half an environment must not be taken for a whole one
            if isinstance(error, subprocess.CalledProcessError):
                sys.exit("Python's venv module is incomplete; on Debian and Ubuntu: apt install python3-venv")
            raise
    print("installing the project and what it needs; PyTorch makes this some minutes the first time", flush=True)
    run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", f".{extra}")


def run(*arguments: str) -> None:
    """Run Python in the environment, in the project's folder; show the command and its time; stop if it fails."""
    print(f"\n$ {PYTHON.relative_to(ROOT)} {' '.join(arguments)}", flush=True)
    began = time.monotonic()
    code = subprocess.call([PYTHON, *arguments], cwd=ROOT)
    print(f"[{time.monotonic() - began:.0f} s]", flush=True)
    if code:
        sys.exit(code)
