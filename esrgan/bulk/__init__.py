"""Upscale images on many machines with a Ray Data job that survives the loss of workers; needs the extra ``[ray]``."""

from esrgan.bulk.cluster import (
    BulkJob,
    ManifestRecord,
    WorkerOptions,
    find_pending_jobs,
    open_manifest,
    upscale_on_cluster,
)

__all__ = ["BulkJob", "ManifestRecord", "WorkerOptions", "find_pending_jobs", "open_manifest", "upscale_on_cluster"]
