"""A web page to try models on: ``esrgan demo``."""
