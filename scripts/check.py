"""Run every check of the project: python3 scripts/check.py."""

from environment import install, run

install("[dev]")
run("-m", "ruff", "format", "--check", ".")
run("-m", "ruff", "check", ".")
run("-m", "mypy")
run("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
run("-m", "sphinx", "-q", "-W", "docs", "site")
run("-m", "pytest")
