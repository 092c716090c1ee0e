"""The table of layers in the documentation is that of import-linter."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_layers_are_those_of_import_linter():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    text = (ROOT / "docs/explanation/architecture.md").read_text("utf-8")
    section = text.partition("## Layers of the package\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    assert [re.findall(r"`(\w+)`", cell) for cell in cells] == [re.findall(r"esrgan\.(\w+)", layer) for layer in layers]
