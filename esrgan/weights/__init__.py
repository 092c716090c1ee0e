"""Weight files: names and containers of others to our names, the architecture inferred, files written whole."""

from esrgan.weights.architecture import Architecture, infer_architecture
from esrgan.weights.containers import load_file, unwrap
from esrgan.weights.dialects import to_our_names
from esrgan.weights.files import GeneratorFile, load_generator, parse_generator, save_file

__all__ = [
    "Architecture",
    "GeneratorFile",
    "infer_architecture",
    "load_file",
    "load_generator",
    "parse_generator",
    "save_file",
    "to_our_names",
    "unwrap",
]
