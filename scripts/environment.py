"""Create the project's own environment, ``.venv``, with nothing but Python, and run commands in it."""

import hashlib
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
PYTHON = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(extra: str = "") -> None:
    """Create ``.venv`` if it is missing, and install the project there in editable mode with its dependencies.

    Nothing is installed if the same ``extra`` was installed before, and ``pyproject.toml``, the version and the folder
    of the project have not changed since.

    Args:
        extra: Optional dependencies to install as well, such as "[dev]".
    """
    # pip has not checked the version of Python, because the project is not installed yet.
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    if not PYTHON.exists():
        print(f"creating the environment {FOLDER}", flush=True)
        try:
            venv.create(FOLDER, with_pip=True)
        except BaseException as error:
            PYTHON.unlink(missing_ok=True)  # so that the next run does not take half an environment for a complete one
            if isinstance(error, subprocess.CalledProcessError):
                sys.exit("Python's venv module is incomplete; on Debian and Ubuntu: apt install python3-venv")
            raise
    stamp = FOLDER / f"installed{extra}"
    sources = (ROOT / "pyproject.toml", ROOT / "esrgan/version.py")
    wanted = hashlib.sha256(b"".join([bytes(ROOT), *(path.read_bytes() for path in sources)])).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("installing the project and its dependencies; PyTorch takes some minutes the first time", flush=True)
    run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", f".{extra}")
    stamp.write_text(wanted)


def run(*arguments: str) -> None:
    """Run Python in the environment, in the project's folder. Print the command and its time, and exit if it fails."""
    print(f"\n$ {PYTHON.relative_to(ROOT)} {' '.join(arguments)}", flush=True)
    began = time.monotonic()
    code = subprocess.call([PYTHON, *arguments], cwd=ROOT)
    print(f"[{time.monotonic() - began:.0f} s]", flush=True)
    if code:
        sys.exit(code)
