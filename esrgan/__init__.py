"""ESRGAN image super-resolution: see README.md."""
