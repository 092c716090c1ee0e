"""Run the project's checks: python3 scripts/check.py [--quick]."""

import argparse

from environment import install, run

parser = argparse.ArgumentParser(description="Create .venv if needed and run the checks there.")
parser.add_argument("--quick", action="store_true", help="skip the documentation and the tests marked as slow")
quick = parser.parse_args().quick

install("[dev]")
run("-m", "ruff", "format", "--check", ".")
run("-m", "ruff", "check", ".")
run("-m", "mypy")
run("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
if not quick:
    run("-m", "sphinx", "-q", "-W", "docs", "site")
run("-m", "pytest", "-n", "2", "--dist", "worksteal", *(["-m", "not slow"] if quick else ["--durations", "20"]))
