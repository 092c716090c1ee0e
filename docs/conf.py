"""Build the documentation site: ``python -m sphinx -W docs site``.

The reference pages for commands, configuration and public models are generated from the code, at each build and by
``python docs/conf.py``. The last two are in git.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import esrgan
from esrgan.cli import COMMANDS
from esrgan.config import Config
from esrgan.pretrained import MODELS

if TYPE_CHECKING:
    from docutils import nodes

HERE = Path(__file__).parent

project, author, release = "esrgan", "the esrgan authors", esrgan.__version__
copyright = "the esrgan authors, Apache-2.0"  # noqa: A001  Sphinx's name
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"esrgan {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
nb_execution_mode = "off"  # the notebook is shown with its stored outputs
nb_merge_streams = True
nb_output_stderr = "remove"  # progress
nb_render_markdown_format = "gfm"  # tables
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
smartquotes_action = "qe"  # quotes and ellipses, but not dashes, because two dashes begin an option
suppress_warnings = ["myst.header"]  # included files start at their own heading level
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # attributes as a list

CLI_INTRODUCTION = """\
# Command line

In a clone of the repository, `inference.py`, `train.py`, `test.py` and `net_interpolation.py` are the same as `esrgan
inference`, `esrgan train`, `esrgan test` and `esrgan interpolate`. `esrgan --version` prints the versions of esrgan,
PyTorch, CUDA and Python. Every command has `--help`.

| exit code | meaning |
|---|---|
| 0 | everything was done |
| 1 | some of the work failed |
| 2 | wrong usage or input |
| 130 | interrupted |

| environment variable | meaning |
|---|---|
| `ESRGAN_DATA` | folder of the named datasets (default: `data`) |
| `ESRGAN_CACHE` | folder of downloaded models and evaluation results (default: `~/.cache/esrgan`) |
"""

CONFIGURATION_INTRODUCTION = """\
# Configuration

One JSON file describes both stages of a run. Every key has a default, so `{}` is the paper's run. Mistakes are reported
all at once, each with its line, what was expected, and what to do. Editors complete the keys with the help of
`configs/schema.json` if the file begins with `"$schema": "schema.json"`. [Train a model](../how_to/train.md) shows how
to use it.

The repository has these configurations:

| file in `configs/` | what it trains |
|---|---|
| `esrgan_default.json` | the paper's ×4 model on DIV2K |
| `esrgan_*_div2k.json`, `esrgan_*_div2k+bsds500.json` | variants with other patch sizes, datasets and numbers of blocks, as their names indicate |
| `photo_x4.json` | a ×4 model for photographs as phones and web sites give them |
| `real_esrgan_x4.json` | a ×4 model for real-world photographs, after Real-ESRGAN |
| `full_x4.json`, `lite_x4.json`, `compact_x4.json` | [the bundled models](../explanation/bundled_models.md) |
| `quickstart.json` | a small model in minutes |

## All keys

These keys are at the top level of the file. Each of the sections below is an object in it.
"""  # noqa: E501  a table row is one line

MODELS_INTRODUCTION = """\
# Public models

`esrgan models NAME` downloads a model. Interrupted downloads resume, and a file with another checksum is never used.
The [bundled models](models.md) need no download.
"""


def configuration_page() -> str:
    """Return the page with all configuration keys, from the schema."""
    lines = [CONFIGURATION_INTRODUCTION.rstrip()]

    def add_section(model: Any, name: str) -> None:
        sections = []
        lines.extend(["", "| key | default | meaning |", "|---|---|---|"])
        for key, field in model.model_fields.items():
            if field.exclude:
                continue
            if hasattr(field.annotation, "model_fields"):
                sections.append((f"{name}.{key}" if name else key, field))
                continue
            default = json.dumps(field.get_default(call_default_factory=True), default=list)
            meaning = re.sub(r"\{.*?\}", r"`\g<0>`", field.description or "")  # JSON keeps its straight quotes
            lines.append(f"| `{key}` | `{default}` | {meaning} |")
        for section, field in sections:
            lines.extend(["", f"## {section}", "", field.description or ""])
            add_section(field.annotation, section)

    add_section(Config, "")
    for name in ("degradation", "photo_degradation"):
        field = Config.model_fields["training"].annotation.model_fields[name]
        (section,) = (part for part in field.annotation.__args__ if hasattr(part, "model_fields"))
        lines.extend(["", f"## {name}", "", "This section belongs to `pretraining` or `training`."])
        lines.append("[Train for real-world photographs](../how_to/degradation.md) describes what the keys do.")
        add_section(section, name)
    return "\n".join(lines) + "\n"


def command_line_page() -> str:
    """Return the page with the help and the examples of every command."""
    lines = [CLI_INTRODUCTION.rstrip()]
    os.environ["COLUMNS"] = "90"  # width of help texts
    for name, summary in COMMANDS.items():
        parser = importlib.import_module(f"esrgan.cli.{name}").make_parser()
        description, examples = parser.description or summary, parser.epilog or ""
        parser.description = parser.epilog = None  # they stand outside the block of options
        examples = textwrap.dedent(examples.removeprefix("examples:\n")).strip()
        lines += ["", f"## {name}", "", description, "", "```text", *parser.format_help().strip().splitlines(), "```"]
        if examples:
            lines += ["", "Examples:", "", "```bash", *examples.splitlines(), "```"]
    return "\n".join(lines) + "\n"


def public_models_page() -> str:
    """Return the page with the public models, their addresses and checksums."""
    lines = [MODELS_INTRODUCTION.rstrip()]
    for name, model in MODELS.items():
        if (source := model.source) is None:
            continue
        size = f"{source.size:,} bytes" if source.size else "size not recorded"
        lines += ["", f"## {name}", "", f"{model.summary[0].upper()}{model.summary[1:]}.", ""]
        lines += [f"- scale: ×{model.scale}", f"- licence: {model.licence}"]
        lines += [f"- PSNR partner: `{model.psnr_model}`"] * bool(model.psnr_model)
        lines += [f"- download: <{source.url}>, {size}", f"- SHA-256: `{source.sha256}`"]
        lines += [f"- size and checksum recorded by: {source.recorded_by}"]
    return "\n".join(lines) + "\n"


def write_pages(_: object = None) -> None:
    """Write the generated pages that have changed."""
    pages = {
        "configuration.md": configuration_page(),
        "command_line.md": command_line_page(),
        "public_models.md": public_models_page(),
    }
    for name, text in pages.items():
        path = HERE / "reference" / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def set_dashes(_: object, document: nodes.document) -> None:
    """Replace the two hyphens that Sphinx puts between a parameter and its description."""
    from docutils import nodes

    for text in list(document.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(": "))


def setup(app: Any) -> None:
    """Generate the pages before Sphinx reads the sources."""
    app.connect("builder-inited", write_pages)
    app.connect("doctree-read", set_dashes)


if __name__ == "__main__":
    write_pages()
