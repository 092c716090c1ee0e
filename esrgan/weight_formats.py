"""Names and suffixes of weight files that are written; without PyTorch, as parsers need them before they import it."""

DIALECT_KEYS = ("basicsr", "esrgan-new", "esrgan-old", "earlier")  # keys of esrgan.weights.dialects
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")
