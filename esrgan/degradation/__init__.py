"""Real-world degradation (Real-ESRGAN, arXiv 2107.10833): makes LR patches from HR patches on the training device.

``process`` runs the whole pipeline, ``sampling`` draws the parameters of each patch, and ``kernels``, ``filters`` and
``jpeg`` implement the single operations. ``photo`` is a milder one, for ordinary photographs.
"""

from esrgan.degradation.photo import PhotoDegradation
from esrgan.degradation.process import Degradation

__all__ = ["Degradation", "PhotoDegradation"]
