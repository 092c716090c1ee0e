"""The site: python -m sphinx -W docs site. Pages on what is in the code are written here, from the code."""

import importlib
import json
import os
from pathlib import Path

import esrgan
from esrgan.cli import COMMANDS
from esrgan.config import Config
from esrgan.pretrained import MODELS

os.environ["COLUMNS"] = "90"  # of the help texts, what fits a page
HERE = Path(__file__).parent

project, author, release = "esrgan", "the esrgan authors", esrgan.__version__
copyright = "the esrgan authors, Apache-2.0"  # noqa: A001  Sphinx's name
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"esrgan {release}"
exclude_patterns = ["notebooks", "start.md"]  # start.md is part of the index
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
smartquotes_action = "qe"  # quotes and ellipses; two dashes begin an option
suppress_warnings = ["myst.header"]  # included pages begin at their own level
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"


def configuration_page() -> str:
    """Give the table of every key: from the configuration's own class."""
    lines = [
        "# Configuration",
        "",
        "One JSON file for both stages. Every key has a default, so `{}` is the paper's run; mistakes are reported all "
        "at once, with their lines. Editors complete keys by `configs/schema.json`.",
    ]

    def section(model: type, prefix: str) -> None:
        later = []
        lines.extend(["", "| key | default | |", "|---|---|---|"])
        for name, field in model.model_fields.items():
            if field.exclude:
                continue
            if hasattr(field.annotation, "model_fields"):
                later.append((f"{prefix}{name}", field))
                continue
            default = json.dumps(field.get_default(call_default_factory=True), default=list)
            lines.append(f"| `{prefix}{name}` | `{default}` | {field.description or ''} |")
        for key, field in later:
            lines.extend(["", f"## {key}", "", field.description or ""])
            section(field.annotation, f"{key}.")

    section(Config, "")
    degradation = next(
        part
        for part in Config.model_fields["training"].annotation.model_fields["degradation"].annotation.__args__
        if hasattr(part, "model_fields")
    )
    lines.extend(["", "## training.degradation, pretraining.degradation", "", "[What each does](degradation.md)."])
    section(degradation, "degradation.")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Give the help of every command, as the commands show it."""
    lines = ["# Command line", "", "`esrgan COMMAND`; the scripts of the repository are the same commands.", ""]
    for name, summary in COMMANDS.items():
        lines += [f"## {name}", "", f"{summary[0].upper()}{summary[1:]}.", "", "```text"]
        parser = importlib.import_module(f"esrgan.cli.{name}").make_parser()
        lines += [*parser.format_help().rstrip().splitlines(), "```", ""]
    return "\n".join(lines)


def models_page() -> str:
    """Give the public models that have names, and what their files are checked by."""
    lines = [
        "# Public models",
        "",
        "`esrgan models NAME` downloads one, goes on where it was cut off, and takes nothing with another checksum. "
        "The [bundled models](models.md) need no download.",
    ]
    for name, model in MODELS.items():
        if (source := model.source) is None:
            continue
        size = f"{source.size:,} bytes" if source.size else "size not recorded"
        partner = f"; its partner is `{model.psnr_model}`" if model.psnr_model else ""
        lines += [
            "",
            f"## {name}",
            "",
            f"×{model.scale}, {model.licence}: {model.summary}{partner}. <{source.url}>, {size}, SHA-256",
        ]
        lines += [f"`{source.sha256}`, as recorded by {source.recorded_by}."]
    return "\n".join(lines) + "\n"


def start_page() -> str:
    """Give the README up to the list of folders, its links as seen from here."""
    text = (HERE.parent / "README.md").read_text("utf-8").partition("\n## Find your way")[0]
    for path, here in (
        ("docs/", ""),
        ("esrgan/pretrained/README.md", "models.md"),
        ("configs/schema.json", "configuration.md"),
        ("configs)", "configuration.md)"),
        ("THIRD_PARTY.md", "third_party.md"),
    ):
        text = text.replace(f"]({path}", f"]({here}")
    return text


def write_pages(_: object) -> None:
    """Write the pages, if they have changed."""
    pages = {"start.md": start_page(), "configuration.md": configuration_page(), "cli.md": cli_page()}
    pages["public_models.md"] = models_page()
    for name, text in pages.items():
        path = HERE / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def setup(app: object) -> None:
    """Have Sphinx write them before it reads."""
    app.connect("builder-inited", write_pages)  # type: ignore[attr-defined]
