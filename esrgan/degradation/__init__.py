"""Real-world degradation (Real-ESRGAN, arXiv 2107.10833): LR patches from HR patches, on the training device.

``process`` is the whole of it, ``sampling`` what is drawn for a patch; ``kernels``, ``filters`` and ``jpeg`` are what
is done to it.
"""

from esrgan.degradation.process import Degradation

__all__ = ["Degradation"]
