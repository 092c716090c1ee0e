"""The configuration of a run: one JSON file is loaded into a frozen tree, and all its mistakes are reported at once.

``schema`` defines the keys and ``cross_checks`` finds values that contradict each other. ``loading`` reads a file;
``json_parser`` records the positions of its keys and ``messages`` explains what is wrong with their values.
"""

from esrgan.config.loading import describe_changes, load
from esrgan.config.schema import Config, FolderPair, json_schema

__all__ = ["Config", "FolderPair", "describe_changes", "json_schema", "load"]
