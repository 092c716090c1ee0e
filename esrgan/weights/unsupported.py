"""Guess from the names in a weight file what it is, for error messages about files that are not ESRGAN generators."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from esrgan.text import one_line

ONLY_ESRGAN = "; only RRDBNet and SRVGGNetCompact are supported"
ADVISE_GENERATOR = "; pass the generator's file"
ADVISE_OPTION = f"{ADVISE_GENERATOR} (esrgan train takes this one with --load-discriminator)"

# Each network with patterns that must all match one of its tensor names. The first network that fits is reported.
NETWORKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a LoRA adapter of a diffusion model", (r"lora_(up|down|A|B)\b",)),
    ("a Stable Diffusion checkpoint", (r"^(model\.diffusion_model|cond_stage_model|conditioner)\.",)),
    ("a diffusion model", (r"^(down_blocks|double_blocks)\.0\.",)),
    (f"HAT{ONLY_ESRGAN}", (r"\.overlap_attn\.",)),
    (f"ATD{ONLY_ESRGAN}", (r"\.attn_atd\.",)),
    (f"DRCT{ONLY_ESRGAN}", (r"^layers\.0\.swin1\.",)),
    (f"RGT{ONLY_ESRGAN}", (r"^before_RG\.", r"^layers\.0\.blocks\.0\.gamma$")),
    (f"DAT{ONLY_ESRGAN}", (r"^before_RG\.",)),
    (f"Swin2SR{ONLY_ESRGAN}", (r"\.residual_group\.blocks\.0\.attn\.logit_scale$",)),
    (f"SwinIR{ONLY_ESRGAN}", (r"^layers\.0\.residual_group\.blocks\.0\.",)),
    (f"Real-CUGAN or waifu2x{ONLY_ESRGAN}", (r"^unet1\.conv1\.",)),
    (f"SPAN{ONLY_ESRGAN}", (r"^block_1\.c1_r\.",)),
    (f"PLKSR{ONLY_ESRGAN}", (r"^feats\.1\.lk\.",)),
    (f"OmniSR{ONLY_ESRGAN}", (r"^residual_layer\.0\.residual_layer\.",)),
    (f"GFPGAN, which restores faces{ONLY_ESRGAN}", (r"^stylegan_decoder\.",)),
    (f"RCAN{ONLY_ESRGAN}", (r"^body\.0\.body\.0\.body\.3\.conv_du\.|^body\.0\.residual_group\.0\.rcab\.",)),
    (f"EDSR{ONLY_ESRGAN}", (r"^head\.0\.weight$", r"^body\.0\.body\.0\.weight$")),
    (f"EDSR or SRResNet{ONLY_ESRGAN}", (r"^conv_first\.weight$", r"^body\.0\.conv1\.weight$")),
    (f"a U-Net discriminator{ADVISE_OPTION}", (r"^conv0\.weight$", r"^conv9\.weight$")),
    (f"a VGG discriminator{ADVISE_OPTION}", (r"^features\.block_0\.conv\.|^conv0_0\.weight$",)),
    (f"a VGG discriminator{ADVISE_GENERATOR}", (r"^features\.0\.weight$", r"^classifier\.2\.weight$")),
    ("LPIPS, an image metric", (r"^lin0\.model\.1\.weight$",)),
    ("a ResNet image classifier", (r"^layer1\.0\.conv1\.weight$",)),
    ("a VGG image classifier", (r"^features\.0\.weight$|^conv1_1\.weight$",)),
)
GENERATOR_PARTS = (
    r"(^|\.)(conv_first|RRDB_trunk|conv_body|trunk_conv|conv_hr|HRconv|model\.1\.sub|rrdb_blocks|in_conv)\."
)

# The names of tensors from which PyTorch computes the weights of a layer.
NORMALISED = r"\.(weight_(g|v|orig|u)|parametrizations\.weight\.(original\d?|0\._u))$"


def find_known_network(names: Iterable[str]) -> str | None:
    """Return the network that has tensors with these names, as ``guess_architecture``, if it is a known one."""
    text = "\n".join(name.removeprefix("module.") for name in names)
    return next((kind for kind, signs in NETWORKS if all(re.search(sign, text, re.MULTILINE) for sign in signs)), None)


def guess_architecture(names: Iterable[str]) -> str:
    """Return the likely network of tensors with these names, with advice where there is any.

    The text completes an error message: "expected an ESRGAN generator, got …".
    """
    listed = list(names)
    if known := find_known_network(listed):
        return known
    text = "\n".join(name.removeprefix("module.") for name in listed)
    first = ", ".join(one_line(name) for name in listed[:3])
    tensors = "1 tensor" if len(listed) == 1 else f"{len(listed)} tensors"
    if re.search(NORMALISED, text, re.MULTILINE):
        return (
            "weights under spectral or weight normalisation; remove it (torch.nn.utils has remove_spectral_norm, "
            "remove_weight_norm and parametrize.remove_parametrizations) and save the state_dict again"
        )
    if re.search(GENERATOR_PARTS, text, re.MULTILINE):
        return f"{tensors} of one ({first}, …) but none of its dense blocks; it is incomplete or another network"
    return f"{tensors} of another network ({first}, …)"


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def describe_sets(keys: Iterable[Any]) -> str:
    """Return that a file has weights under each of these keys, with advice."""
    listed = [*map(str, keys)]
    return f"{len(listed)} sets of weights (keys: {one_line(', '.join(listed[:5]))}); save only the generator's"


def guess_contents(content: Mapping[Any, Any]) -> str:
    """Return what a dictionary without weights seems to be, with advice where there is any."""
    if "param_groups" in content:
        return f"the state of an optimiser{ADVISE_GENERATOR}"
    if any(str(key).startswith(("optimizer", "scheduler")) for key in content):
        return f"a training state (optimisers and schedulers) without the network{ADVISE_GENERATOR}"
    sets = [key for key, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]
    if sets:
        return describe_sets(sets)
    keys = one_line(", ".join(map(str, list(content)[:5])) or "none")
    return f"a dictionary in which no network was found (keys: {keys})"
