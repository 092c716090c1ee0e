"""Adversarial losses: the relativistic average GAN of ESRGAN (§3.2 after arXiv 1807.00734), and three older objectives.

Let C be the discriminator's logits and D(a, b) = σ(C(a) − E[C(b)]). For real images r and generated images f, the
relativistic objective is

    L_D = ½ (−E_r[log D(r, f)] − E_f[log(1 − D(f, r))])
    L_G = ½ (−E_r[log(1 − D(r, f))] − E_f[log D(f, r)])

The factor ½ comes from the authors' released code, not from the paper's equations. The inner E is the mean over all
logits of the call: over the micro-batch of one rank and, if the discriminator has a logit per pixel, over its pixels.

The other objectives judge each image by itself. Their L_D has the factor ½ too, which makes it comparable with the
relativistic one. As in BasicSR, their L_G depends on the generated images only and has no factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from esrgan.losses.content import at_least_float32


@dataclass(frozen=True)
class AdversarialLoss:
    """The losses of a GAN objective, which are functions of the logits of real and of generated images.

    The logits have equal shapes. Both losses are scalars, computed in float32 from logits of half precision.

    Attributes:
        discriminator: Loss of the discriminator.
        generator: Loss of the generator; a gradient flows into the logits that it depends on.

    Example:
        >>> import torch
        >>> from esrgan.losses import ADVERSARIAL_LOSSES
        >>> loss, real, fake = ADVERSARIAL_LOSSES["hinge"], torch.tensor([[2.0]]), torch.tensor([[0.5]])
        >>> loss.discriminator(real, fake), loss.generator(real, fake)
        (tensor(0.7500), tensor(-0.5000))
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


def _relative_logits(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    # In half precision, the mean is too coarse for small differences of logits.
    real_logits, fake_logits = at_least_float32(real_logits), at_least_float32(fake_logits)
    return real_logits - fake_logits.mean(), fake_logits - real_logits.mean()


def relativistic_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return L_D as a scalar, from logits of equal shape. It is log 2 if all logits are equal."""
    real, fake = _relative_logits(real_logits, fake_logits)
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2  # softplus(−x) = −log σ(x) without overflow


def relativistic_generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return L_G as a scalar, from logits of equal shape. Gradients flow through both, as in the paper."""
    real, fake = _relative_logits(real_logits, fake_logits)
    return (F.softplus(real).mean() + F.softplus(-fake).mean()) / 2


_Penalty = Callable[[Tensor], Tensor]  # of each logit


def _absolute(real: _Penalty, fake: _Penalty, generated: _Penalty) -> AdversarialLoss:
    """Return the objective that penalises each logit by itself.

    Args:
        real: Penalty on the discriminator for logits of real images.
        fake: Penalty on the discriminator for logits of generated images.
        generated: Penalty on the generator for logits of generated images.
    """

    def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return (real(at_least_float32(real_logits)).mean() + fake(at_least_float32(fake_logits)).mean()) / 2

    def generator_loss(_: Tensor, fake_logits: Tensor) -> Tensor:
        return generated(at_least_float32(fake_logits)).mean()

    return AdversarialLoss(discriminator_loss, generator_loss)


ADVERSARIAL_LOSSES = {
    "ragan": AdversarialLoss(relativistic_discriminator_loss, relativistic_generator_loss),
    # Cross-entropy, in the form that does not saturate (arXiv 1406.2661). BasicSR's wgan_softplus is the same formula.
    "vanilla": _absolute(lambda x: F.softplus(-x), F.softplus, lambda x: F.softplus(-x)),
    # Least squares, with the targets 1 for real and 0 for generated images (arXiv 1611.04076).
    "lsgan": _absolute(lambda x: (x - 1).square(), lambda x: x.square(), lambda x: (x - 1).square()),
    # The hinge loss (arXiv 1705.02894), with which the discriminator ignores images that it judges with confidence.
    "hinge": _absolute(lambda x: F.relu(1 - x), lambda x: F.relu(1 + x), lambda x: -x),
}
