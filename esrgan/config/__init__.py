"""The configuration of a run: one JSON file, one frozen tree, and every mistake in the file reported at once.

``schema`` defines the keys, ``cross_checks`` which values exclude each other. ``loading`` reads a file:
``json_parser`` records where its keys are, ``messages`` words what is wrong with them.
"""

from esrgan.config.loading import describe_changes, load
from esrgan.config.schema import Config, FolderPair, json_schema

__all__ = ["Config", "FolderPair", "describe_changes", "json_schema", "load"]
