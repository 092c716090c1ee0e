"""How weights can be named for other programs; without PyTorch, as parsers need this before they import anything."""

NAMES = ("basicsr", "esrgan-new", "esrgan-old", "earlier")  # keys of esrgan.weights.dialects that can be written
