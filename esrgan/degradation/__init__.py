"""Real-world degradation (Real-ESRGAN, arXiv 2107.10833): makes LR patches from HR patches on the training device.

``process`` runs the whole pipeline, ``sampling`` draws the parameters of each patch, and ``kernels``, ``filters`` and
``jpeg`` implement the single operations.
"""

from esrgan.degradation.process import Degradation

__all__ = ["Degradation"]
