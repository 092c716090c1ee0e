"""Prepare a release: python scripts/release.py --check v0.1.0, or --texts pypi.

--check compares a tag with the version of the package, CITATION.cff, the changelog and the texts about installing.
--texts makes README.md and the documentation install esrgan from PyPI, or from a clone as before it was there.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README_COMMANDS = """\
```text
python3 -m venv .venv
. .venv/bin/activate
"""
# What each page says before esrgan is on PyPI, and after.
TEXTS = {
    "README.md": {
        "clone": f"""\
You need Python 3.11 or newer and a clone of this repository:

{README_COMMANDS}pip install -e .            # to upscale, test and blend
pip install -e '.[train]'   # instead, to train as well
""",
        "pypi": f"""\
You need Python 3.11 or newer. The scripts below are in this repository:

{README_COMMANDS}pip install esrgan            # to upscale, test and blend
pip install 'esrgan[train]'   # instead, to train as well
""",
    },
    "docs/index.md": {
        "clone": "In a clone of the repository with Python 3.11 or newer:\n\n```text\npip install -e .\n",
        "pypi": "With Python 3.11 or newer, and for the photograph a clone of the repository:\n\n"
        "```text\npip install esrgan\n",
    },
    "docs/tutorials/first_photograph.md": {
        "clone": ". .venv/bin/activate\npip install -e .\n",
        "pypi": ". .venv/bin/activate\npip install esrgan\n",
    },
}


def read(name: str) -> str:
    """Return the text of a file of the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def set_texts(kind: str) -> None:
    """Make each page install esrgan from "pypi" or from a "clone"."""
    other = {"pypi": "clone", "clone": "pypi"}[kind]
    if changed := [name for name, texts in TEXTS.items() if not any(text in read(name) for text in texts.values())]:
        sys.exit(f"{changed[0]}: expected the text about installing of scripts/release.py; make both the same")
    for name, texts in TEXTS.items():
        (ROOT / name).write_text(read(name).replace(texts[other], texts[kind]), encoding="utf-8")


def find_problems(tag: str) -> list[str]:
    """Return everything that keeps the version of a tag from being released."""
    version = read("esrgan/version.py").partition('__version__ = "')[2].partition('"')[0]
    problems = []
    if tag != f"v{version}":
        problems.append(f"tag {tag}: expected v{version}, the version in esrgan/version.py")
    if f"\nversion: {version}\n" not in read("CITATION.cff"):
        problems.append(f"CITATION.cff: expected version: {version}")
    if not re.search(rf"^## \[?{re.escape(version)}\b", read("CHANGELOG.md"), re.MULTILINE):
        problems.append(f"CHANGELOG.md: expected a section {version} for what is under Unreleased")
    problems += [
        f"{name}: installs from a clone; run python scripts/release.py --texts pypi"
        for name, texts in TEXTS.items()
        if texts["pypi"] not in read(name)
    ]
    problems += [
        f"{name}: expected the repository's owner in place of OWNER"
        for name in ("pyproject.toml", "docs/notebooks/esrgan.ipynb")
        if "github.com/OWNER/" in read(name)
    ]
    return problems


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", metavar="TAG", help="check that this tag can be released")
    action.add_argument("--texts", choices=("pypi", "clone"), help="where the texts install esrgan from")
    args = parser.parse_args()
    if args.texts:
        set_texts(args.texts)
    elif problems := find_problems(args.check):
        sys.exit("\n".join(problems))
