"""The relativistic average GAN losses (ESRGAN §3.2 after arXiv 1807.00734).

Let C be the discriminator's logits and D(a, b) = σ(C(a) − E[C(b)]). For real images r and generated images f:

    L_D = ½ (−E_r[log D(r, f)] − E_f[log(1 − D(f, r))])
    L_G = ½ (−E_r[log(1 − D(r, f))] − E_f[log D(f, r)])

The factor ½ comes from the authors' released code, not from the paper's equations. The inner E is the mean over all
logits of the call: over the micro-batch of one rank and, if the discriminator has a logit per pixel, over its pixels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def _relative_logits(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    if real_logits.dtype.itemsize < 4:  # in half precision, the mean is too coarse for small differences of logits
        real_logits, fake_logits = real_logits.float(), fake_logits.float()
    return real_logits - fake_logits.mean(), fake_logits - real_logits.mean()


def relativistic_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return L_D as a scalar, from logits of equal shape. It is log 2 if all logits are equal."""
    real, fake = _relative_logits(real_logits, fake_logits)
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2  # softplus(−x) = −log σ(x) without overflow


def relativistic_generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return L_G as a scalar, from logits of equal shape. Gradients flow through both, as in the paper."""
    real, fake = _relative_logits(real_logits, fake_logits)
    return (F.softplus(real).mean() + F.softplus(-fake).mean()) / 2
