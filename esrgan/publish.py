"""Describe a generator for others: a folder for the Hugging Face Hub, and an entry of OpenModelDB."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from esrgan.errors import EsrganError, Problem
from esrgan.files import create_folder, file_digest, write_text
from esrgan.hub import WEIGHTS_NAME
from esrgan.text import printable
from esrgan.weights import CompactArchitecture, GeneratorFile, RRDBNetArchitecture, load_file, save_file

# https://huggingface.co/docs/hub/repositories-licenses; those that models of the ESRGAN family have.
_HUB_LICENCES = {
    *("agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "gpl-2.0", "gpl-3.0", "isc", "lgpl-3.0"),
    *("mit", "mpl-2.0", "openrail", "unlicense", "wtfpl"),
    *(f"cc-by{terms}-4.0" for terms in ("", "-sa", "-nc", "-nd", "-nc-sa", "-nc-nd")),
}
HUB_FILES = (WEIGHTS_NAME, "config.json", "README.md")
_REPO = r"\w([\w.-]*\w)?/\w([\w.-]*\w)?"
_ID = r"[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*"  # of models, users and tags in OpenModelDB's src/lib/schema.ts
_WEB = ("https://", "http://")
_RESOURCE_TYPES = {".pth": "pth", ".pt": "pth", ".safetensors": "safetensors"}

_CARD = """\
---
{metadata}
---

# {name}

{description}

| property | value |
|---|---|
{rows}

## Use

```text
pip install 'esrgan[hub]'
esrgan inference -m hf:{repo} photo.jpg
```

```python
from esrgan import Upscaler

upscaler = Upscaler.from_hub("{repo}")
upscaler("photo.jpg").save("photo_sr.png")
```

The tensors of `{weights}` have BasicSR's names, which most programs for models of the ESRGAN family read.
"""
_GAN_LIMITS = """
## Limits

What a GAN model adds is plausible, but it is a guess. Do not use it where an invented detail does harm.
"""


@dataclass(frozen=True)
class ModelFacts:
    """Facts that only the author of a model knows; none of them is guessed.

    Attributes:
        name: Name of the model, for people to read.
        authors: Who made it; for OpenModelDB the ids of users.
        licence: SPDX identifier, if the file records none.
        description: What it is for, in Markdown.
        tags: Keywords; for OpenModelDB the ids of its tags.
        date: Day of publication, as yyyy-mm-dd.
        urls: Addresses of the weight file.
        dataset: What it was trained on, in Markdown.
        pretrained: Id in OpenModelDB of the model that it was trained from.
        images: Addresses of pairs of an LR image and its output.

    Raises:
        EsrganError: If a text is passed instead of a list of texts, of which it would be the letters.
    """

    name: str | None = None
    authors: Sequence[str] = ()
    licence: str | None = None
    description: str | None = None
    tags: Sequence[str] = ()
    date: str | None = None
    urls: Sequence[str] = ()
    dataset: str | None = None
    pretrained: str | None = None
    images: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        if texts := [key for key in ("authors", "tags", "urls", "images") if isinstance(getattr(self, key), str)]:
            raise EsrganError(Problem(texts[0], "a list", "a text"))


def write_hub_folder(
    file: GeneratorFile, folder: str | Path, repo: str, facts: ModelFacts, *, overwrite: bool = True
) -> None:
    """Write a folder to upload to the Hugging Face Hub: the weights, ``config.json`` and a model card.

    ``Upscaler.from_hub`` reads exactly these weights back. Tensors whose values float16 represents exactly are stored
    as float16.

    Args:
        file: The generator.
        folder: The folder; it is created.
        repo: The repository that it is for, as "owner/name".
        facts: What the card says. ``name``, ``description``, ``authors``, ``tags`` and ``dataset`` may be missing.
        overwrite: Replace existing files.

    Raises:
        EsrganError: If no licence is known, ``repo`` has another form, or a file cannot be written or exists and
            ``overwrite`` is false.
    """
    folder = Path(folder)
    if not re.fullmatch(_REPO, repo, re.ASCII):
        raise EsrganError(Problem("repository", "owner/name", repo))
    licence = _choose_licence(file, facts)
    create_folder(folder)
    content = file.to_dict() | {"licence": licence}
    notice = load_file(file.path).get("notice")  # the copyright notice of a model made by others
    if isinstance(notice, str):
        content["notice"] = notice
    halves = {name: value.half() for name, value in file.state.items()}
    content["params"] = {
        name: halves[name] if torch.equal(halves[name].float(), value) else value for name, value in file.state.items()
    }
    save_file(folder / WEIGHTS_NAME, content, overwrite=overwrite)
    config = {"model_type": "esrgan", "architectures": [type(file.build()).__name__], **asdict(file.architecture)}
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n", overwrite=overwrite)
    write_text(folder / "README.md", _make_card(file, repo, licence, facts, notice), overwrite=overwrite)


def make_openmodeldb_entry(file: GeneratorFile, model_id: str, facts: ModelFacts) -> dict[str, Any]:
    """Return the entry ``data/models/<model_id>.json`` of OpenModelDB for a weight file.

    The keys are those of its ``src/lib/schema.ts``. Architecture, size, channels, checksum and what the file records
    about its training are filled in.

    Args:
        file: The generator, loaded from the file that ``facts.urls`` will serve.
        model_id: The id: scale, "x-" and words that are joined by hyphens, such as "4x-My-Model".
        facts: The rest. Only ``dataset``, ``pretrained`` and ``images`` may be missing, and ``licence`` if the file
            records it.

    Raises:
        EsrganError: If a fact is missing, an id has another form, or the file is not one that OpenModelDB lists. The
            message names all of them.
    """
    problems = [*_find_openmodeldb_problems(file, model_id, facts)]
    if problems:
        raise EsrganError(problems)
    architecture = file.architecture
    if isinstance(architecture, RRDBNetArchitecture):
        kind = "esrgan+" if architecture.plus else "esrgan"
        size = [f"{architecture.rrdb_channels}nf", f"{architecture.num_basic_blocks}nb"]
    else:
        assert isinstance(architecture, CompactArchitecture)  # noqa: S101  the only other one; for the type checker
        kind, size = "compact", [f"{architecture.num_feat}nf", f"{architecture.num_conv}nc"]
    resource = {
        "platform": "pytorch",
        "type": _RESOURCE_TYPES[file.path.suffix.lower()],
        "size": file.path.stat().st_size,
        "sha256": file_digest(file.path).removeprefix("sha256:"),
        "urls": [*facts.urls],
    }
    entry = {
        "name": facts.name,
        "author": facts.authors[0] if len(facts.authors) == 1 else [*facts.authors],
        "license": _choose_licence(file, facts),
        "tags": sorted(facts.tags),
        "description": (facts.description or "").strip(),
        "date": facts.date,
        "architecture": kind,
        "size": size,
        "scale": architecture.scale_factor,
        "inputChannels": architecture.in_channels,
        "outputChannels": architecture.img_channels,
        "resources": [resource],
        "images": [{"type": "paired", "LR": low, "SR": high} for low, high in facts.images],
    }
    optional = {"dataset": facts.dataset, "pretrainedModelG": facts.pretrained, **_recorded_training(file)}
    return entry | {key: value for key, value in optional.items() if value is not None}


def _choose_licence(file: GeneratorFile, facts: ModelFacts) -> str:
    """Return the licence that the file records, or else the one that its author states."""
    if file.licence and facts.licence not in (None, file.licence):
        remedy = "omit it, or pass a file of yours"
        raise EsrganError(Problem("licence", f"{file.licence}, which {file.path} records", str(facts.licence), remedy))
    licence = file.licence or facts.licence
    if not licence:
        expected = "an SPDX identifier such as Apache-2.0 or CC-BY-4.0"
        raise EsrganError(Problem("licence", expected, f"none, and {file.path} records none"))
    return licence


def _find_openmodeldb_problems(file: GeneratorFile, model_id: str, facts: ModelFacts) -> list[str | Problem]:
    """Return everything that keeps the facts from being a valid entry."""
    problems: list[str | Problem] = []
    prefix = f"{file.architecture.scale_factor}x-"
    if not re.fullmatch(rf"{prefix}{_ID}", model_id):
        problems.append(Problem("id", f"{prefix} and words of letters and digits joined by hyphens", model_id))
    if file.path.suffix.lower() not in _RESOURCE_TYPES:
        expected, remedy = f"a file {', '.join(_RESOURCE_TYPES)}", "export the weights first"
        problems.append(Problem(str(file.path), expected, file.path.suffix or "no suffix", remedy))
    try:
        _choose_licence(file, facts)
    except EsrganError as error:
        problems += error.problems
    required = {
        "name": (facts.name, "the name of the model"),
        "author": (facts.authors, "the id of its author in OpenModelDB, such as xinntao"),
        "tag": (facts.tags, "at least one tag of OpenModelDB, such as photo or general-upscaler"),
        "description": ((facts.description or "").strip(), "what the model is for"),
        "date": (facts.date, "the day of publication as yyyy-mm-dd"),
        "url": (facts.urls, "the address of the weight file"),
    }
    problems += [Problem(key, expected, "none") for key, (value, expected) in required.items() if not value]
    if facts.date and not _is_date(facts.date):
        problems.append(Problem("date", "a day as yyyy-mm-dd", facts.date))
    addresses = [("url", each) for each in facts.urls] + [("image", each) for pair in facts.images for each in pair]
    problems += [Problem(key, "an address from https://", each) for key, each in addresses if not each.startswith(_WEB)]
    for key, ids in (("author", facts.authors), ("tag", facts.tags)):
        expected = "an id of letters, digits and hyphens"
        problems += [Problem(key, expected, each) for each in ids if not re.fullmatch(_ID, each)]
    if facts.pretrained and not re.fullmatch(rf"\d+x-{_ID}", facts.pretrained):
        problems.append(Problem("pretrained", "the id of a model in OpenModelDB, such as 4x-BSRGAN", facts.pretrained))
    return problems


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _recorded_training(file: GeneratorFile) -> dict[str, Any]:
    """Return the facts about its training that a model file of this project records; none of them for a blend."""
    section = file.hparams.get(file.stage or "")
    if file.is_blend or not isinstance(section, dict):
        return {}
    patch, batch_size = section.get("cr_patch_size"), file.hparams.get("batch_size")
    is_square = isinstance(patch, list) and len(patch) == 2 and patch[0] == patch[1]
    side = patch[0] if isinstance(patch, list) and is_square else None
    return {
        "trainingBatchSize": batch_size if isinstance(batch_size, int) else None,
        "trainingHRSize": side if isinstance(side, int) else None,
        "trainingOTF": any(section.get(key) is not None for key in ("degradation", "photo_degradation")),
    }


def _make_card(file: GeneratorFile, repo: str, licence: str, facts: ModelFacts, notice: object) -> str:
    """Return the text of the model card. Its metadata is YAML, of which JSON is a part."""
    architecture = file.architecture
    hub_licence = re.sub("-(only|or-later)$", "", licence.lower())
    metadata: dict[str, Any] = {"license": hub_licence}
    if hub_licence not in _HUB_LICENCES:
        metadata = {"license": "other", "license_name": licence}
    tags = ["super-resolution", "esrgan", f"{file.scale:g}x", *facts.tags]
    metadata |= {"library_name": "esrgan", "pipeline_tag": "image-to-image", "tags": [*dict.fromkeys(tags)]}
    parameters = sum(value.numel() for value in file.state.values())
    channels = {1: "grey", 3: "RGB", 4: "RGB and alpha"}
    rows = {
        "network": f"{file.size}, {parameters:,} parameters",
        "scale": f"×{file.scale:g}",
        "input": channels.get(architecture.in_channels, str(architecture.in_channels)),
        "output": channels.get(architecture.img_channels, str(architecture.img_channels)),
        "training": file.origin,
        "trained on": facts.dataset,
        "author": ", ".join(facts.authors),
        "licence": f"{licence}. {notice}" if notice else licence,
    }
    description = facts.description or f"A ×{file.scale:g} generator of the ESRGAN family."
    card = _CARD + (_GAN_LIMITS if file.stage == "training" else "")
    return card.format(
        # JSON may contain characters that YAML refuses.
        metadata="\n".join(
            printable(f"{key}: {json.dumps(each, ensure_ascii=False)}") for key, each in metadata.items()
        ),
        name=facts.name or repo.partition("/")[2],
        description=description.strip(),
        rows="\n".join(f"| {key} | {_make_cell(value)} |" for key, value in rows.items() if value),
        repo=repo,
        weights=WEIGHTS_NAME,
    )


def _make_cell(text: str) -> str:
    """Return a text as the cell of a Markdown table."""
    return " ".join(printable(text).split()).replace("|", "\\|")
