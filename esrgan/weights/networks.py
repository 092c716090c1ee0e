"""The networks in a file of weights: which one is the generator to use, and what else trainers save with it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence, Set

import torch
from torch import Tensor

from esrgan.console import log
from esrgan.errors import WeightsError
from esrgan.text import one_line
from esrgan.weights.architecture import StateDict
from esrgan.weights.unsupported import find_known_network

_NEGATIONS = "".join(f"(?<!{word}[._-])" for word in ("non", "no", "not", "without", "before"))
AVERAGED = re.compile(  # in the keys of averaged weights
    rf"{_NEGATIONS}(?:(?<![a-z])(?:model|netg?|generator)?ema(?![a-z])|EMA|Ema(?![a-z])|(?<![a-z])ema(?:model|net))"
)
# The two networks that ema_pytorch saves below the name of the average.
_EMA_PYTORCH = re.compile(r"(?i)(?<=ema\.)(?:ema|online)_model\.")
_ONLINE = "online_model."  # the raw one of them
# Words of prefixes that name no network other than the generator.
_GENERAL_WORDS = frozenset(
    (
        *("g", "gen", "generator", "model", "module", "net", "network", "networks", "params", "state", "dict"),
        *("average", "averaged", "averager", "averaging", "decay", "shadow", "weights"),
        *("callback", "callbacks", "helper"),
    )
)
# The end of the prefix of a generator that is a whole network, whatever a trainer saves with it.
_STANDALONE_PREFIX = re.compile(r"(?i)(?:^|[._])(?:net_?g|model_?g|generator|gen|g|params)(?:_?ema)?\.(?:module\.)*$")
# Names of what trainers save with a generator and its output does not depend on, in words joined by "_". Those of
# _COMPANIONS are certain, also with the suffixes; others that begin with them, such as "vgg_fusion", and those of
# _LIKELY could be parts of a larger network.
_COMPANIONS = "|".join(
    (
        r"(?:.+_)?(?:discriminators?|disc?|critics?|patch_?gan)",
        r"(?:unet_|patch_)?(?:d|(?:crit|net|model)_?[def][ab]?)",
        r"(?:.+_)?(?:gan|dino)?loss(?:es)?",
        r"(?:.+_)?(?:criterions?|crit?|percep|perceptual|adv|adversarial)|per",
        r"(?:cri|criterion)_.+|l_(?:.+_)?pix|(?:.+_)?(?:mse|charbonnier)",
        r"(?:.+_)?(?:metrics?|lpips|dists|fid|kid|niqe|musiq|topiq|clip_?iqa|clip_score|psnr|(?:ms_?)?ssim)",
        r"(?:.+_)?(?:vgg|arcface)",
        r"(?:.+_)?(?:optim|optimi[sz]ers?)",
    )
)
_SUFFIXES = r"(?:_?(?:loss|net|network)|_(?:ema|a|b|unet|fn|weights?|pix|score)){,3}"
_LIKELY = "|".join(
    (
        r"(?:.+_)?(?:gan|dino_?v?)(?:_.+)?",
        r"d\d+",  # discriminators of several scales, or the levels of a decoder
        r"features|feat(?:ure)?_(?:extractors?|net)|extractor|inception|clip_model",
        r"degradations?|jpeger|usm(?:_sharpener)?|sobel|diff_?aug",
    )
)
_CERTAIN_COMPANION = re.compile(rf"(?:{_COMPANIONS}){_SUFFIXES}")
_LIKELY_COMPANION = re.compile(rf"(?:{_COMPANIONS}){_SUFFIXES}_.+|{_LIKELY}")
_MAX_IGNORED = 5  # parts that a message lists


def check_independent(state: StateDict, prefixes: tuple[str, ...], place: str) -> tuple[list[str], str]:
    """Check that the generators are no parts of a larger network, whose other layers would be lost.

    Returns:
        The other parts of the file of which it is not certain that no output depends on them, and what the names of
        averaged tensors without dots between layers have in common.
    """
    wrappers = {prefix[: dot.end()] for prefix in prefixes for dot in re.finditer(r"\.", prefix)}
    parts = {name: _part_outside(name, wrappers) for name in state}
    rest = [name for name, part in parts.items() if not _CERTAIN_COMPANION.fullmatch(_last_words(part))]
    outside = [name for name in rest if not name.startswith(prefixes)]
    uncertain = [name for name in outside if _is_parameter(name, state[name])]
    unknown = [name for name in uncertain if not _LIKELY_COMPANION.fullmatch(_last_words(parts[name]))]
    if unknown and not any(_STANDALONE_PREFIX.search(prefix) for prefix in prefixes):
        got = find_known_network(rest) or (
            f"a larger network: {one_line(unknown[0])} is outside its part {one_line(prefixes[0])}* that resembles "
            "one; if that part is a generator of its own, save only its state_dict"
        )
        raise WeightsError(f"{place}: expected a generator of the ESRGAN family, got {got}")
    # Some trainers name averaged weights without dots, such as model_ema.conv_firstweight.
    averaged = [name for name in outside if AVERAGED.search(parts[name].rpartition(".")[2])]
    averaged = [name for name in averaged if state[name].ndim > 1 and name not in uncertain]
    dotless = [name for name in averaged if name.endswith("weight")]
    uncertain += [name for name in averaged if name not in dotless]
    return [*dict.fromkeys(parts[name] for name in uncertain)], os.path.commonprefix(dotless)  # noqa: RUF071  names, not paths


def _is_parameter(name: str, value: Tensor) -> bool:
    """Return whether the name looks like a layer's parameter; a number may be a setting, such as an EMA's."""
    return name.endswith((".weight", ".bias")) or (name.endswith((".alpha", ".beta", ".gamma")) and value.ndim > 0)


def _part_outside(name: str, wrappers: Collection[str]) -> str:
    """Return a tensor's name up to the first component that is not one of a generator's prefix.

    Args:
        name: The name, such as ``module.netD1.conv0.weight``.
        wrappers: The prefixes of the generators and their beginnings, such as ``module.`` and ``module.netG.``.
    """
    shared = 0
    while name[: (end := name.find(".", shared) + 1)] in wrappers:
        shared = end
    return name[: end - 1] if end else name


def _last_words(part: str) -> str:
    """Return the words of the last component of a name, such as "net_d" of ``module.netD1``; of letters also "d1"."""
    return "_".join(_words(part.rpartition(".")[2]))


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"^[A-Za-z]\d+$|[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def log_ignored(place: str, prefix: str, ignored: list[str], dotless: str) -> None:
    """Log which parts of a file are ignored, and why raw weights are used although there are averaged ones."""
    averaged = [] if is_averaged(prefix) else [part for part in ignored if is_averaged(f"{part}.")]
    others = [part for part in ignored if part not in averaged]
    if others:
        kind = "looks like another network" if len(others) == 1 else "look like other networks"
        log.warning("%s: using %s*; ignoring %s, which %s", place, one_line(prefix), _list_parts(others), kind)
    if averaged or (dotless and not is_averaged(prefix)):
        log_raw(place, averaged, dotless)


def log_raw(place: str, averaged: list[str], dotless: str = "") -> None:
    """Log that the raw weights are used although there are averaged ones.

    Args:
        place: Name of the file.
        averaged: The names of the averaged networks.
        dotless: The beginning of the names of averaged tensors that cannot be split into layers.
    """
    verb = "is" if len(averaged) == 1 else "are"
    reasons = [f"{_list_parts(averaged)} {verb} incomplete or of another network"] if averaged else []
    reasons += [f"the names {one_line(dotless)}* have no dots between layers"] if dotless else []
    log.warning("%s: using the raw weights instead of averaged ones, because %s", place, " and ".join(reasons))


def _list_parts(parts: list[str]) -> str:
    """Return the first few parts of a file as a short text."""
    more = f" and {len(parts) - _MAX_IGNORED} more" if len(parts) > _MAX_IGNORED else ""
    return one_line(", ".join(f"{part}.*" for part in parts[:_MAX_IGNORED])) + more


def is_averaged(prefix: str) -> bool:
    """Return whether a prefix or a key is of averaged weights; ``ema.online_model.`` is of raw ones."""
    return AVERAGED.search(prefix) is not None and not prefix.endswith(_ONLINE)


def prefer_averaged(networks: Sequence[tuple[str, StateDict]], others: Collection[str] = ()) -> list[int]:
    """Choose between averaged and raw networks.

    An averaged network fits a raw one if it has all of its tensors in the same shapes, unless its name is that of
    another raw network. If each raw network has a fitting one, the averaged ones are chosen, else the raw ones. If
    exactly one raw network is called a generator, the others do not count, and only an averaged network whose name
    mentions no other network fits.

    Args:
        networks: The full prefix of each network, such as ``state_dict.netG.``, and its tensors by name.
        others: The prefixes of raw networks that are no candidates.

    Returns:
        The positions of the chosen networks.
    """
    prefixes = [prefix for prefix, _ in networks]
    averaged = [position for position, prefix in enumerate(prefixes) if is_averaged(prefix)]
    raw = [position for position in range(len(networks)) if position not in averaged]
    if not raw or not averaged:
        return raw or averaged
    shapes = [shapes_of(layers) for _, layers in networks]
    names = [_name_without_mark(prefix) for prefix in prefixes]
    all_raw = [*(prefixes[position] for position in raw), *others]
    raw_names = {_name_without_mark(prefix) for prefix in all_raw if not prefix.endswith(_ONLINE)}
    fitting = {
        position: [
            each
            for each in averaged
            if shapes[position] <= shapes[each] and (names[each] == names[position] or names[each] not in raw_names)
        ]
        for position in raw
    }
    standalone = [position for position in raw if _STANDALONE_PREFIX.search(prefixes[position])]
    if len(standalone) == 1:
        own = standalone[0]
        known = _GENERAL_WORDS.union(_words(names[own]))
        fitting[own] = [each for each in fitting[own] if known.issuperset(_words(names[each]))]
        if fitting[own]:
            return fitting[own]
    return [*dict.fromkeys(each for fits in fitting.values() for each in fits)] if all(fitting.values()) else raw


def _name_without_mark(prefix: str) -> str:
    """Return the name of the network that was averaged, such as "teacher.params" of ``teacher.params_ema.module.``."""
    name = AVERAGED.sub("", _EMA_PYTORCH.sub("", re.sub(r"\{.*?\}", "", prefix)))
    parts = (part.strip("_-") for part in name.split("."))
    return ".".join(part for part in parts if part not in ("", "module"))


def shapes_of(layers: StateDict) -> Set[tuple[str, torch.Size]]:
    """Return the names and shapes of tensors."""
    return {name: value.shape for name, value in layers.items()}.items()
