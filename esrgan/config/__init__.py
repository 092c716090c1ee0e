"""The configuration of a run: one JSON file, one frozen tree, and every mistake in the file reported at once.

``fields`` says what can be configured, ``contradictions`` which values exclude each other. ``loading`` reads a file:
``json_text`` finds where its keys are, ``wording`` says what is wrong with them.
"""

from esrgan.config.fields import Config, FolderPair, schema
from esrgan.config.loading import differences, load

__all__ = ["Config", "FolderPair", "differences", "load", "schema"]
