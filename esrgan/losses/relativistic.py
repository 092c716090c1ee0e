"""The relativistic average GAN losses (ESRGAN §3.2 after arXiv 1807.00734).

With C the discriminator's logits and D(a, b) = σ(C(a) − E[C(b)]), for real images r and generated ones f:

    L_D = ½ (−E_r[log D(r, f)] − E_f[log(1 − D(f, r))])
    L_G = ½ (−E_r[log(1 − D(r, f))] − E_f[log D(f, r)])

The ½ is the authors' released code, not the paper's equations. The inner E is the mean over all logits of the call,
so over the micro-batch of one rank, and for a discriminator with a logit per pixel over the pixels too.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def _relative_logits(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    if real_logits.dtype.itemsize < 4:  # a mean of half-precision logits loses what separates them
        real_logits, fake_logits = real_logits.float(), fake_logits.float()
    return real_logits - fake_logits.mean(), fake_logits - real_logits.mean()


def relativistic_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Give L_D, a scalar, from logits of any equal shapes. It is log 2 where both are alike."""
    real, fake = _relative_logits(real_logits, fake_logits)
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2  # softplus(−x) = −log σ(x), never overflowing


def relativistic_generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Give L_G, a scalar, from logits of any equal shapes. Gradients flow through both, as in the paper."""
    real, fake = _relative_logits(real_logits, fake_logits)
    return (F.softplus(real).mean() + F.softplus(-fake).mean()) / 2
