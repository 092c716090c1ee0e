"""Upscaling on many machines: a Ray Data job that survives the loss of workers; needs the extra ``[ray]``."""

from esrgan.bulk.job import Record, Settings, Task, open_manifest, plan, upscale

__all__ = ["Record", "Settings", "Task", "open_manifest", "plan", "upscale"]
