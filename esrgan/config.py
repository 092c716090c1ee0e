"""The configuration of a run: one JSON file, one frozen tree, and every mistake in the file reported at once.

``python -m esrgan.config`` prints the JSON schema that editors use, which is kept as ``configs/schema.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic import Discriminator as TagOf

from esrgan.errors import ConfigError, Problem

_Keys = tuple[str | int, ...]  # ("training", "train_datasets", 0)


def _require_int(value: object) -> object:
    if type(value) is not int:  # 4.0 == 4 and True == 1, so Literal alone would take them
        raise ValueError
    return value


# JSON has lists only, and strict tuples would refuse them; their items stay strict.
_List = Strict(False)
_Natural = Annotated[int, Field(ge=0)]
_Count = Annotated[int, Field(ge=1)]
_Rate = Annotated[float, Field(gt=0)]
_Scaling = Annotated[float, Field(ge=0)]
_Decay = Annotated[float, Field(ge=0, lt=1)]
_Gamma = Annotated[float, Field(gt=0, le=1)]
_Text = Annotated[str, Field(min_length=1)]
_Betas = Annotated[tuple[_Decay, _Decay], _List]
_PatchSize = Annotated[tuple[_Count, _Count], _List] | None
_Counts = Annotated[tuple[_Count, ...], _List]
_Scale = Annotated[Literal[1, 2, 4, 8], BeforeValidator(_require_int)]
_Channels = Annotated[Literal[1, 3, 4], BeforeValidator(_require_int)]
_Layer = Annotated[str, Field(pattern=r"^(conv|relu)[1-5]_[1-4]$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FolderPair(_Section):
    """A dataset given as a folder of HR images, with the folder of their LR counterparts where there is one."""

    hr: _Text = Field(description="Folder of HR images.")
    lr: _Text | None = Field(default=None, description="Folder of LR images of the same names; null = made from HR.")


# The tag decides by type, so that a mistake inside an object is one error and not one for each alternative.
_TAGS = ("name", "folders")
_Dataset = Annotated[
    Annotated[_Text, Tag(_TAGS[0])] | Annotated[FolderPair, Tag(_TAGS[1])],
    TagOf(lambda value: _TAGS[isinstance(value, (dict, FolderPair))]),
]
_Datasets = Annotated[tuple[_Dataset, ...], _List, Field(min_length=1)]


class _Stage(_Section):
    num_epoch: _Count | None = Field(default=10000, description="Epochs of len(train) // batch_size steps.")
    num_steps: _Count | None = Field(default=None, description="Optimiser steps, instead of num_epoch.")
    cr_patch_size: _PatchSize = Field(default=(128, 128), description="HR crop [H, W]; null = whole images.")
    betas: _Betas = Field(default=(0.9, 0.999), description="Adam's running-average coefficients.")
    train_datasets: _Datasets = Field(default=("div2k",), description='Names, folders or {"hr", "lr"} pairs.')
    val_datasets: _Datasets = Field(default=("div2k",), description="The same to validate on, as whole images.")

    @model_validator(mode="before")
    @classmethod
    def _steps_replace_default_epochs(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("num_steps") is not None:
            return {"num_epoch": None, **data}
        return data


class Pretraining(_Stage):
    """The first stage: the generator alone, on the content loss."""

    lr: _Rate = Field(default=2e-4, description="Learning rate.")
    sched_step: _Count = Field(default=200000, description="Steps between changes of the rate.")
    sched_gamma: _Gamma = Field(default=0.5, description="Factor of the rate at each change.")
    hard_transforms: bool = Field(default=False, description="JPEG and coarse dropout on the LR patch.")


class Training(_Stage):
    """The second stage: generator against discriminator."""

    num_epoch: _Count | None = Field(default=8000, description="Epochs of len(train) // batch_size steps.")
    betas: _Betas = Field(default=(0.9, 0.99), description="Adam's running-average coefficients, both networks.")
    g_lr: _Rate = Field(default=1e-4, description="Learning rate of the generator.")
    d_lr: _Rate = Field(default=1e-4, description="Learning rate of the discriminator.")
    g_sched_steps: _Counts = Field(default=(50000, 100000, 200000, 300000), description="Steps where it changes.")
    d_sched_steps: _Counts = Field(default=(50000, 100000, 200000, 300000), description="Steps where it changes.")
    g_sched_gamma: _Gamma = Field(default=0.5, description="Factor of the generator's rate there.")
    d_sched_gamma: _Gamma = Field(default=0.5, description="Factor of the discriminator's rate there.")
    g_adversarial_loss_scaling: _Scaling = Field(default=0.005, description="Weight of the adversarial loss (λ).")
    g_content_loss_scaling: _Scaling = Field(default=0.01, description="Weight of the content loss (η).")


class Generator(_Section):
    """RRDBNet."""

    rrdb_channels: _Count = Field(default=64, description="Channels between the RRDBs.")
    growth_channels: _Count = Field(default=32, description="Channels each convolution of an RDB adds.")
    num_basic_blocks: _Count = Field(default=23, description="Number of RRDBs.")
    num_dense_blocks: _Count = Field(default=3, description="RDBs in an RRDB.")
    num_residual_blocks: _Count = Field(default=5, description="Convolutions in an RDB.")
    residual_scaling: _Rate = Field(default=0.2, description="Factor of every residual (β).")
    use_subpixel_conv: bool = Field(default=False, description="Upsample by PixelShuffle, not nearest.")
    pixel_unshuffle: bool = Field(default=False, description="Scale 1, 2: fold the input, upsample by 4.")


class Discriminator(_Section):
    """VGG-style or U-Net discriminator."""

    type: Literal["vgg", "unet"] = Field(default="vgg", description="One logit per image, or per pixel.")
    vgg_blk_ch: Annotated[_Counts, Field(min_length=1)] = Field(
        default=(64, 64, 128, 128, 256, 256, 512, 512),
        description="vgg: channels of the blocks; stride 2 where in = out.",
    )
    fc_features: _Counts = Field(default=(100,), description="vgg: widths of the hidden linear layers.")
    num_features: _Count = Field(default=64, description="unet: channels of the first convolution.")


class ContentLoss(_Section):
    """The pixel loss, of the first stage and (scaled) of the second."""

    loss_f: Literal["l1", "l2", "mse"] = Field(default="l1", description="l1, or l2 (also called mse).")


class PerceptualLoss(_Section):
    """The distance between VGG features."""

    layer_weights: Annotated[dict[_Layer, _Rate], Field(min_length=1)] = Field(
        default={"conv5_4": 1.0}, description="Weight per layer: convB_I before, reluB_I after activation."
    )
    vgg_type: Literal["vgg11", "vgg13", "vgg16", "vgg19"] = Field(default="vgg19", description="The network.")
    criterion: Literal["l1", "l2"] = Field(default="l1", description="Distance between features.")
    normalize_input: bool = Field(default=True, description="Subtract ImageNet's mean and divide by its deviation.")
    normalize_loss: bool = Field(default=False, description="Divide by the sum of layer_weights.")
    weights: _Text | None = Field(default=None, description="State-dict file; null = torchvision's ImageNet.")
    optional: bool = Field(default=False, description="Do without it if its weights are not here.")


class Logging(_Section):
    """What is written while training."""

    interval: _Count = Field(default=100, description="Steps between log lines.")
    tensorboard: bool = Field(default=True, description="Write TensorBoard event files.")
    wandb: Literal["disabled", "offline", "online"] = Field(default="disabled", description="Weights & Biases mode.")
    wandb_project: _Text = Field(default="esrgan", description="Weights & Biases project.")
    wandb_entity: _Text | None = Field(default=None, description="Weights & Biases user or team; null = its default.")
    num_images: _Natural = Field(default=4, description="Fixed validation images in the panels.")


class Config(_Section):
    """Everything a run needs. ``Config()`` is the default run."""

    # Editors read it; it says nothing about the run, so two files that differ in it give equal configurations.
    json_schema: Annotated[str | None, AfterValidator(lambda _: None)] = Field(
        default=None, alias="$schema", exclude=True, description="Schema for editors; ignored."
    )
    scale_factor: _Scale = Field(default=4, description="Upscaling factor of network and data.")
    batch_size: _Count = Field(default=16, description="Patches per optimiser step, over all ranks.")
    img_channels: _Channels = Field(default=3, description="1 = grey, 3 = RGB, 4 = RGB with alpha.")
    seed: _Natural = Field(default=0, description="Seed of initialisation, order and augmentation.")
    num_workers: _Natural | None = Field(default=None, description="Loader processes; null = by CPUs.")
    data_root: _Text | None = Field(default=None, description="Datasets; null = $ESRGAN_DATA or data.")
    cache_dir: _Text | None = Field(default=None, description="Decoded images; null = data root's cache.")
    ema_decay: _Decay = Field(default=0.999, description="Decay of the averaged generator; 0 = off.")
    autocast_dtype: Literal["auto", "bfloat16", "float16"] = Field(
        default="auto", description="What --autocast uses; auto = bfloat16 where native, else float16 on CUDA."
    )
    spatial_transforms: Literal["d4", "flip_or_transpose", "none"] = Field(
        default="d4",
        description="The eight flips and rotations; or, p 0.5, one of flip 0.75 and transpose 0.25; or none.",
    )
    validation_interval: _Count = Field(default=5000, description="Steps between validations.")
    pretraining: Pretraining = Field(default_factory=Pretraining, description="First stage, content loss only.")
    training: Training = Field(default_factory=Training, description="Second stage, adversarial.")
    generator: Generator = Field(default_factory=Generator, description="The network that upscales.")
    discriminator: Discriminator = Field(default_factory=Discriminator, description="Its adversary.")
    content_loss: ContentLoss = Field(default_factory=ContentLoss, description="Pixel loss.")
    perceptual_loss: PerceptualLoss = Field(default_factory=PerceptualLoss, description="VGG feature loss.")
    logging: Logging = Field(default_factory=Logging, description="Log lines, TensorBoard, Weights & Biases.")

    def as_dict(self) -> dict[str, Any]:
        """Return every key, defaults included, as JSON types."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: Any, source: str = "configuration") -> Config:
        """Check what :meth:`as_dict` returned, for instance from a checkpoint.

        Args:
            data: The nested dictionary; keys that are absent take their defaults.
            source: What to call it in messages.

        Raises:
            ConfigError: With everything that is wrong.
        """
        return _build(data, _Report(source))


def schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file."""
    return Config.model_json_schema()


def load(path: str | Path) -> Config:
    """Read and check a configuration file.

    Args:
        path: A JSON file in UTF-8.

    Raises:
        ConfigError: With everything that is wrong with the file, in the order of its lines.
    """
    report = _Report(str(path))
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        report.stop((), "a JSON file", "nothing of that name", "check the path; the shipped ones are in configs/")
    except IsADirectoryError:
        report.stop((), "a JSON file", "a folder", "name a .json file in it")
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        report.stop((), "a JSON file", f"an error ({getattr(error, 'strerror', error)})", "check the path")
    try:
        return _build(_parse(raw, report), report)
    except RecursionError:
        report.stop((), "a JSON object of sections", "hundreds of brackets inside each other", "check the brackets")


class _Report:
    """Collects problems; knows where in ``text`` each key is.

    Args:
        source: The name of the file, or of what else is checked.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.text: str | None = None
        self.offsets: dict[_Keys, int] = {}
        self._found: list[tuple[int, Problem]] = []

    def add(self, keys: _Keys, expected: str, got: str, remedy: str = "", offset: int | None = None) -> None:
        """Note one problem, at ``offset`` or at the innermost of ``keys`` that is written in the text."""
        if offset is None:
            offset = next((self.offsets[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.offsets), 0)
        place = self.source
        if self.text is not None:
            line = self.text.count("\n", 0, offset) + 1
            place += f":{line}:{offset - self.text.rfind(chr(10), 0, offset)}"
        if keys:
            place += f": {_dotted(keys)}"
        self._found.append((offset, Problem(place, expected, got, remedy)))

    def check(self) -> None:
        """Raise ConfigError if anything was noted."""
        if self._found:
            raise self._error()

    def stop(self, keys: _Keys, expected: str, got: str, remedy: str, offset: int | None = None) -> NoReturn:
        """Note one problem and raise ConfigError at once: there is nothing more to check."""
        self.add(keys, expected, got, remedy, offset)
        raise self._error()

    def _error(self) -> ConfigError:
        return ConfigError([problem for _, problem in sorted(self._found, key=lambda found: found[0])])


# --- JSON text: what json.loads does not say: where every key is, and which keys are there twice ---

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)

_SYNTAX_REMEDIES = {  # by the start of the rest of the text, or of json's message
    "//": "delete the comment, JSON has none",
    "/*": "delete the comment, JSON has none",
    "#": "delete the comment, JSON has none",
    "'": "use double quotes",
    "True": "write true",
    "False": "write false",
    "None": "write null",
    "Expecting ','": "put a comma before it, or close the bracket",
    "Extra data": "delete what follows the first value",
    "Unterminated string": "close the string with a double quote",
    "Invalid control character": r"write a line break in a string as \n",
    "Invalid \\escape": r"write a backslash as \\, or use / in paths",
}


def _parse(raw: bytes, report: _Report) -> Any:
    """Return the JSON value, noting where its keys are and what is wrong with the text."""
    try:
        text = report.text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = report.text = raw[: error.start].decode("utf-8")
        report.stop((), "UTF-8 text", f"the byte 0x{raw[error.start]:02x}", "save the file as UTF-8", len(before))
    if text.startswith("\ufeff"):
        text = report.text = text[1:]
        report.add((), "plain UTF-8", "a byte order mark", "save the file as UTF-8 without BOM")
    if not text.strip():
        report.stop((), "a JSON object", "an empty file", "write {} for the default run")

    tokens = list(_TOKEN.finditer(text))
    commas = [token.start() for token, after in pairwise(tokens) if token[0] == "," and after[0] in ("}", "]")]
    characters = list(text)
    for offset in commas:
        characters[offset] = " "  # so that the search for problems goes on behind it
    syntax_error = None
    try:
        # Longer integers than a float can hold become infinite, which every field refuses with its own words.
        data = json.loads("".join(characters), parse_int=lambda digits: (int if len(digits) < 300 else float)(digits))
    except json.JSONDecodeError as error:
        syntax_error = error
    for offset in commas:
        if not syntax_error or offset < syntax_error.pos:
            report.add((), "no comma before a closing bracket", "one", "delete it", offset)
    if syntax_error:
        rest = text[syntax_error.pos :].strip().split("\n")[0]
        remedies = [
            remedy
            for start, remedy in _SYNTAX_REMEDIES.items()
            if rest.startswith(start) or syntax_error.msg.startswith(start)
        ]
        remedy = (remedies or ["check the quotes, commas and brackets here"])[0]
        report.stop((), "JSON", _show(rest) if rest else "the end of the file", remedy, syntax_error.pos)
    _locate(tokens, report)
    return data


def _locate(tokens: Iterable[re.Match[str]], report: _Report) -> None:
    """Note where every key and list item is, and which keys are there twice."""
    path: list[str | int] = []  # the key or index we are at, in each open bracket
    first_offsets: list[dict[str, int]] = []  # of the keys so far, in each open bracket
    key_follows = False
    for token in tokens:
        kind, offset = token[0][0], token.start()
        if key_follows and kind == '"':
            path[-1] = key = json.loads(token[0])
            key_follows = False
            first = first_offsets[-1].setdefault(key, offset)
            if first != offset:
                line = (report.text or "").count("\n", 0, first) + 1
                report.add((*path,), "each key once", "a second one", f"delete it or the one in line {line}", offset)
            report.offsets[*path] = offset  # json keeps the last one too
        elif path and isinstance(path[-1], int) and kind not in ",]":
            report.offsets[*path] = offset
        if kind in "{[":
            path.append("" if kind == "{" else 0)
            first_offsets.append({})
            key_follows = kind == "{"
        elif kind in "}]":
            path.pop()
            first_offsets.pop()
            key_follows = False
        elif kind == ",":
            if isinstance(index := path[-1], int):
                path[-1] = index + 1
            else:
                key_follows = True


# --- Values: pydantic finds what is wrong, the words come from the JSON schema ---


def _build(data: Any, report: _Report) -> Config:
    """Return the checked configuration, or raise everything in ``report`` and all that is wrong with ``data``."""
    if not isinstance(data, dict):
        report.stop((), "a JSON object", _show(data), "write {} for the default run")
    mistakes: dict[tuple[_Keys, bool], Any] = {}
    try:
        Config.model_validate(data)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            # Pydantic adds the tag of an alternative behind its index, and "[key]" where a layer's name is wrong.
            keys = tuple(key for before, key in pairwise(("", *item["loc"])) if not isinstance(before, int))
            is_name = keys[:2] == _LAYERS and len(keys) > 3
            if is_name or (item["type"] == "missing" and isinstance(keys[-1], int)):
                keys = keys[:-1]  # the second: a list that is too short
            mistakes.setdefault((keys, is_name), item)
    for (keys, is_name), item in mistakes.items():
        # A list whose only item is wrong is also called too short.
        if item["type"] != "too_short" or not any(inner[:-1][: len(keys)] == keys for inner, _ in mistakes):
            report.add(keys, *_explain(keys, is_name, item["type"], item["input"]))
    wrong = {keys[:2] for keys, _ in mistakes}
    if () in wrong:
        report.check()
    config = Config.model_validate(_without(data, wrong))
    for involved, expected, got, remedy in _contradictions(config):
        if not any(keys[:n] in wrong for keys in involved for n in (1, 2)):
            report.add(involved[0], expected, got, remedy)
    report.check()
    return config


def _without(data: dict[Any, Any], wrong: set[_Keys], parents: _Keys = ()) -> dict[Any, Any]:
    return {
        key: _without(value, wrong, (key,)) if isinstance(value, dict) and not parents else value
        for key, value in data.items()
        if (*parents, key) not in wrong
    }


def _explain(keys: _Keys, is_name: bool, kind: str, value: object) -> tuple[str, str, str]:
    """Return what was expected, what was there, and the remedy."""
    if kind in ("extra_forbidden", "invalid_key"):
        return "a known key", _show(keys[-1]), _suggest(keys)
    if kind == "string_unicode":
        return "well-formed Unicode", _show(value), r"delete the unpaired \ud... escape"
    if kind == "missing" and isinstance(value, dict):
        return _describe(_node(keys)), "nothing", "write it too"
    if is_name:
        return "a layer name such as conv5_4 or relu5_4", _show(keys[-1]), "B of convB_I is 1 to 5, I is 1 to 4"
    return _describe(_node(keys)), _show(value), _remedy(keys, value)


_schema = cache(schema)


def _options(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alternatives of a schema node, references resolved."""
    if "$ref" in node:
        node = _schema()["$defs"][node["$ref"].rpartition("/")[2]]
    alternatives = node.get("anyOf", node.get("oneOf"))
    return [option for each in alternatives for option in _options(each)] if alternatives else [node]


def _node(keys: _Keys) -> dict[str, Any]:
    """Return the schema of the value at ``keys``; {} if unknown."""
    node = _schema()
    for key in keys:
        children: list[dict[str, Any]] = []
        for option in _options(node):
            if isinstance(key, int):
                children += [*option.get("prefixItems", [])[:1], *filter(None, [option.get("items")])]
            else:
                children += filter(None, [option.get("properties", {}).get(key)])
                children += option.get("patternProperties", {}).values()
        node = children[0] if children else {}
    return node


_WORDS = {"integer": "an integer", "number": "a number", "boolean": "true or false"}
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def _describe(node: dict[str, Any]) -> str:
    """Return in words what a schema node accepts."""
    alternatives = []
    for option in _options(node):
        kind = option.get("type", "")
        text = _WORDS.get(kind, kind)
        if "enum" in option:
            text = "one of " + ", ".join(map(_show, option["enum"]))
        elif kind == "string":
            text = "a non-empty string" if "minLength" in option else "a string"
        elif kind == "object":
            text = "an object with at least one key" if "minProperties" in option else "an object"
        elif kind == "array":
            amount = f"{'' if 'maxItems' in option else 'at least '}{option.get('minItems', 0)}"
            text = f"a list of {amount}, each {_describe((option.get('prefixItems') or [option['items']])[0])}"
        elif bounds := " and ".join(f"{name} {option[key]}" for key, name in _BOUNDS.items() if key in option):
            text += " " + bounds.replace("at least", "of at least")
        alternatives.append(text)
    # A list comes last: "each an integer or null" would say that its items may be null.
    return " or ".join(sorted(alternatives, key=lambda text: text.startswith("a list")))


def _remedy(keys: _Keys, value: object) -> str:
    """Return what to write instead: the value in the right type if that is enough, else the default."""
    choices = [choice for option in _options(_node(keys)) for choice in option.get("enum", [])]
    for candidate in _corrections(value, choices):
        nested: Any = candidate
        for key in reversed(keys):
            nested = {key: nested}
        try:
            Config.model_validate(nested)
        except ValidationError:
            continue
        return f"write {_show(candidate)}"
    default: Any = Config().as_dict()
    for depth, key in enumerate(keys):
        if not isinstance(default, dict) or key not in default:
            keys = keys[:depth]
            break
        default = default[key]
    if not keys or (isinstance(default, dict) and len(keys) == 1):
        return "leave it out"
    return f"the default of {_dotted(keys)} is {_show(default)}"


def _corrections(value: object, choices: list[object]) -> Iterator[object]:
    if isinstance(value, str):
        yield from get_close_matches(value.lower(), [choice for choice in choices if isinstance(choice, str)], 1)
        with suppress(ValueError, RecursionError):
            yield json.loads(value)
    if isinstance(value, float) and value.is_integer():
        yield int(value)
    if isinstance(value, int) and value in (0, 1):
        yield bool(value)
    yield [value]
    yield [value, value]


def _suggest(keys: _Keys) -> str:
    """Return the nearest known keys to an unknown one, in its own section first, or all that its section has."""
    siblings = [key for option in _options(_node(keys[:-1])) for key in option.get("properties", {})]
    known = [(*keys[:-1], key) for key in siblings]
    for key, node in _schema()["properties"].items():
        known += [(key,), *((key, sub) for option in _options(node) for sub in option.get("properties", {}))]
    scores: dict[_Keys, float] = {}
    for candidate in known:
        ratio = SequenceMatcher(None, str(keys[-1]), str(candidate[-1])).ratio()
        if ratio >= 0.6:  # difflib's own cutoff; the same name elsewhere is worth as much as a fair match here
            scores[candidate] = ratio - (0.35 if candidate[:-1] != keys[:-1] else 0)
    best = [f"`{_dotted(candidate)}`" for candidate, score in scores.items() if score == max(scores.values())]
    return f"did you mean {' or '.join(best)}?" if best else f"the keys here are {', '.join(siblings)}"


def _show(value: object) -> str:
    """Return a value as the file would write it, on one short printable line."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = f"a Python {type(value).__name__}"  # from_dict only
    if not text.isprintable():
        text = json.dumps(value).replace("\x7f", r"\u007f")
    return text if len(text) <= 80 else text[:77] + "..."


def _dotted(keys: _Keys) -> str:
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += "." * bool(text) + (key if re.fullmatch(r"[\w$-]{1,60}", key) else _show(key))
    return text


# --- Contradictions: keys that are right each by itself ---

# Convolutions before each pooling of torchvision's VGGs.
_VGG_BLOCKS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_Contradiction = tuple[list[_Keys], str, str, str]  # the keys involved (reported at the first), expected, got, remedy
_SCALE: _Keys = ("scale_factor",)
_UNSHUFFLE: _Keys = ("generator", "pixel_unshuffle")
_PATCH: _Keys = ("training", "cr_patch_size")
_LAYERS: _Keys = ("perceptual_loss", "layer_weights")


def _contradictions(config: Config) -> Iterator[_Contradiction]:
    yield from _stage_contradictions(config)
    yield from _network_contradictions(config)
    for name in ("g_sched_steps", "d_sched_steps"):
        steps = getattr(config.training, name)
        if any(step >= later for step, later in pairwise(steps)):
            yield [("training", name)], "steps that rise", _show(steps), f"use {_show(sorted(set(steps)))}"
    if config.pretraining.hard_transforms and config.img_channels == 4:
        involved: list[_Keys] = [("pretraining", "hard_transforms"), ("img_channels",)]
        yield involved, "false with img_channels 4 (JPEG has no alpha)", "true", "write false"


def _stage_contradictions(config: Config) -> Iterator[_Contradiction]:
    scale, multiple, unit = config.scale_factor, int(config.scale_factor), f"scale_factor {config.scale_factor}"
    if config.generator.pixel_unshuffle and scale > 2:
        yield [_UNSHUFFLE, _SCALE], "false with a scale_factor above 2", f"true with {unit}", "write false"
    elif config.generator.pixel_unshuffle:
        multiple, unit = 4, f"4 (scale_factor {scale} times pixel_unshuffle by {4 // scale})"
    for name, stage in (("pretraining", config.pretraining), ("training", config.training)):
        if (stage.num_epoch is None) == (stage.num_steps is None):
            got = "neither" if stage.num_steps is None else "both"
            yield [(name, "num_steps"), (name, "num_epoch")], "either num_epoch or num_steps", got, "write one of them"
        patch = stage.cr_patch_size or ()
        if any(side % multiple for side in patch):
            lower = [side // multiple * multiple for side in patch]
            upper = [-(-side // multiple) * multiple for side in patch]
            remedy = f"use {lower} or {upper}" if all(lower) else f"use {upper}"
            yield [(name, "cr_patch_size"), _SCALE], f"a multiple of {unit}", _show(patch), remedy


def _network_contradictions(config: Config) -> Iterator[_Contradiction]:
    vgg, deepest = config.perceptual_loss.vgg_type, 1
    for layer in config.perceptual_loss.layer_weights:
        block, number = int(layer[4]), int(layer[6])
        last, deepest = _VGG_BLOCKS[vgg][block - 1], max(deepest, block)
        if number > last:
            remedy = f"the last one of block {block} is {layer[:6]}{last}"
            yield [(*_LAYERS, layer), ("perceptual_loss", "vgg_type")], f"a layer of {vgg}", layer, remedy

    patch = config.training.cr_patch_size
    smallest = 2 ** (deepest - 1)  # VGG halves before each block but the first
    if patch and min(patch) < smallest:
        remedy = f"use at least [{smallest}, {smallest}], or layers of earlier blocks"
        yield [_PATCH, _LAYERS], f"{smallest} px or more for block {deepest} of {vgg}", _show(patch), remedy

    channels = config.discriminator.vgg_blk_ch
    halved_away = 2 ** sum(before == after for before, after in pairwise(channels))
    uses_batch_norm = config.discriminator.type == "vgg" and len(channels) > 1
    if patch and config.batch_size == 1 and uses_batch_norm and max(patch) <= halved_away:
        involved: list[_Keys] = [("batch_size",), _PATCH, ("discriminator", "vgg_blk_ch"), ("discriminator", "type")]
        expected = f"at least 2 with training patches of {halved_away} px or less (BatchNorm needs two values)"
        yield involved, expected, "1", "use 2, or larger patches"


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
