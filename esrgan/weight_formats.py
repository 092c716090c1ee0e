"""Naming schemes and suffixes of the weight files that can be written.

Argument parsers need these before PyTorch is imported, so this module does not import it.
"""

DIALECT_KEYS = ("basicsr", "esrgan-new", "esrgan-old", "earlier")  # the keys in esrgan.weights.dialects
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")
