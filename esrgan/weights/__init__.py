"""Read and write weight files: renaming, container formats, architecture inference, atomic writes."""

from esrgan.weights.architecture import (
    Architecture,
    CompactArchitecture,
    RRDBNetArchitecture,
    configured_architecture,
    infer_architecture,
)
from esrgan.weights.containers import extract_state_dict, load_file
from esrgan.weights.dialects import to_basicsr_names
from esrgan.weights.discriminator_file import DiscriminatorArchitecture, load_discriminator
from esrgan.weights.generator_file import GeneratorFile, load_generator, parse_generator, save_file

__all__ = [
    "Architecture",
    "CompactArchitecture",
    "DiscriminatorArchitecture",
    "GeneratorFile",
    "RRDBNetArchitecture",
    "configured_architecture",
    "extract_state_dict",
    "infer_architecture",
    "load_discriminator",
    "load_file",
    "load_generator",
    "parse_generator",
    "save_file",
    "to_basicsr_names",
]
