"""Models by name: those that come with this package, and public ones that are downloaded on request."""

from esrgan.pretrained.catalogue import DEFAULT, MODELS, Model, Source, downloads_dir, fetch, find, is_here, partner

__all__ = ["DEFAULT", "MODELS", "Model", "Source", "downloads_dir", "fetch", "find", "is_here", "partner"]
