import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

from esrgan.errors import WeightsError
from esrgan.losses import (
    ADVERSARIAL_LOSSES,
    ContentLoss,
    PerceptualLoss,
    artifact_loss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)

INDEX = {"conv1_1": 0, "relu1_1": 1, "conv2_1": 3, "conv3_2": 8}  # in torchvision's vgg11


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# The content loss


@pytest.mark.parametrize(
    ("loss_f", "expected"), [("l1", (0.5 + 0.25 + 0 + 1) / 4), ("l2", (0.25 + 0.0625 + 0 + 1) / 4)]
)
def test_content_loss_is_the_mean_distance(loss_f, expected):
    fake = torch.tensor([[[[0.5, 0.25], [0.75, 0.0]]]])
    real = torch.tensor([[[[0.0, 0.5], [0.75, 1.0]]]])
    assert ContentLoss(loss_f)(fake, real).item() == expected


def test_content_loss_defaults_to_l1_and_mse_is_l2():
    fake, real = images(2, 3, 4, 4), images(2, 3, 4, 4, seed=1)
    assert torch.equal(ContentLoss()(fake, real), ContentLoss("l1")(fake, real))
    assert torch.equal(ContentLoss("mse")(fake, real), ContentLoss("l2")(fake, real))
    assert not torch.equal(ContentLoss("l1")(fake, real), ContentLoss("l2")(fake, real))


def test_content_loss_rejects_other_distances():
    with pytest.raises(KeyError):
        ContentLoss("l3")


@pytest.mark.parametrize("loss_f", ["l1", "l2"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_content_loss_of_half_precision_is_computed_in_float32(loss_f, dtype):
    fake, real = images(4, 3, 16, 16).to(dtype), images(4, 3, 16, 16, seed=1).to(dtype)
    difference = fake.double() - real.double()
    expected = (difference.abs() if loss_f == "l1" else difference.square()).mean().item()
    for a, b in ((fake, real), (fake.float(), real), (fake, real.float())):
        loss = ContentLoss(loss_f)(a, b)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_content_loss_keeps_float64():
    assert ContentLoss()(images(1, 1, 2, 2).double(), images(1, 1, 2, 2, seed=1).double()).dtype == torch.float64


def test_content_loss_pulls_towards_the_real_image():
    real = images(1, 3, 4, 4)
    fake = (real + 0.1).requires_grad_()
    ContentLoss()(fake, real).backward()
    torch.testing.assert_close(fake.grad, torch.full_like(fake, 1 / fake.numel()))


# The perceptual loss


@pytest.fixture(scope="module")
def features():
    with torch.device("meta"):
        layers = torchvision.models.vgg11(weights=None).features[:9]
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(value.shape, generator=generator)
        * (math.sqrt(2 / value[0].numel()) if value.dim() > 1 else 0.1)
        for name, value in layers.state_dict().items()
    }
    layers.load_state_dict(state, assign=True)
    return layers.requires_grad_(False)


@pytest.fixture(scope="module")
def state(features):
    return {f"features.{name}": value for name, value in features.state_dict().items()}


def expected_loss(features, fake, real, layer_weights, criterion, normalize_input):
    """Compute the loss directly with torchvision's layers."""
    total = 0.0
    for name, weight in layer_weights.items():
        outputs = []
        for x in (fake, real):
            if normalize_input:
                mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
                x = (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)
            outputs.append(features[: INDEX[name] + 1](x).double())
        difference = outputs[0] - outputs[1]
        total += weight * (difference.abs() if criterion == "l1" else difference.square()).mean().item()
    return total


@pytest.mark.parametrize("criterion", ["l1", "l2"])
@pytest.mark.parametrize("normalize_input", [True, False])
@pytest.mark.parametrize(
    "layer_weights", [{"conv3_2": 1.0}, {"conv1_1": 0.1, "relu1_1": 0.7, "conv2_1": 2.0, "conv3_2": 0.25}]
)
def test_perceptual_loss_is_the_weighted_sum_of_feature_distances(
    features, state, criterion, normalize_input, layer_weights
):
    fake, real = images(2, 3, 16, 24), images(2, 3, 16, 24, seed=1)
    loss = PerceptualLoss(state, layer_weights, "vgg11", criterion, normalize_input)(fake, real)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    expected = expected_loss(features, fake, real, layer_weights, criterion, normalize_input)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_perceptual_loss_defaults_to_l1_with_normalised_input(features, state):
    fake, real = images(1, 3, 8, 8), images(1, 3, 8, 8, seed=1)
    weights = {"conv2_1": 3.0}
    loss = PerceptualLoss(state, weights, "vgg11")(fake, real)
    assert loss.item() == pytest.approx(expected_loss(features, fake, real, weights, "l1", True), rel=1e-5)


def test_normalised_perceptual_loss_is_divided_by_weight_sum(state):
    fake, real = images(1, 3, 8, 8), images(1, 3, 8, 8, seed=1)
    weights = {"conv1_1": 1.5, "conv2_1": 2.5}
    plain, normalised = (PerceptualLoss(state, weights, "vgg11", normalize_loss=n)(fake, real) for n in (False, True))
    assert normalised.item() == pytest.approx(plain.item() / 4, rel=1e-6)
    assert weights == {"conv1_1": 1.5, "conv2_1": 2.5}


def test_perceptual_loss_of_equal_images_is_zero(state):
    image = images(1, 3, 8, 8)
    assert PerceptualLoss(state, {"conv3_2": 1.0}, "vgg11")(image, image.clone()).item() == 0


def test_perceptual_gradient_flows_only_to_the_fake_image(state):
    loss = PerceptualLoss(state, {"conv1_1": 1.0, "conv3_2": 1.0}, "vgg11")
    fake, real = images(1, 3, 8, 8).requires_grad_(), images(1, 3, 8, 8, seed=1).requires_grad_()
    loss(fake, real).backward()
    assert real.grad is None
    assert fake.grad.any()
    assert all(parameter.grad is None for parameter in loss.parameters())


@pytest.mark.parametrize("channels", [1, 4])
def test_perceptual_loss_accepts_grey_and_rgba(state, channels):
    loss = PerceptualLoss(state, {"conv2_1": 1.0}, "vgg11")
    fake, real = images(1, channels, 8, 8), images(1, channels, 8, 8, seed=1)
    as_rgb = [image[:, [0, 0, 0] if channels == 1 else [0, 1, 2]] for image in (fake, real)]
    assert loss(fake, real).item() == pytest.approx(loss(*as_rgb).item(), rel=1e-6)


@pytest.mark.parametrize("normalize_input", [True, False])
def test_perceptual_loss_of_bfloat16_images_is_computed_in_float32(state, normalize_input):
    loss = PerceptualLoss(state, {"conv2_1": 1.0}, "vgg11", normalize_input=normalize_input)
    fake, real = images(1, 3, 8, 8).bfloat16(), images(1, 3, 8, 8, seed=1).bfloat16()
    low_precision = loss(fake, real)
    assert low_precision.dtype == torch.float32
    assert low_precision.item() == pytest.approx(loss(fake.float(), real.float()).item(), rel=1e-5)


def test_perceptual_loss_rejects_foreign_weights_and_layers(state):
    with pytest.raises(WeightsError):
        PerceptualLoss({}, {"conv1_1": 1.0}, "vgg11")
    with pytest.raises(ValueError, match="conv5_4"):
        PerceptualLoss(state, {"conv5_4": 1.0}, "vgg11")


# The relativistic losses

SHAPES = [(1, 1), (7, 1), (3, 1, 5, 4)]


def probability(a, b):
    return torch.sigmoid(a - b.mean())


def logits(shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 0.3 * seed).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_relativistic_losses_are_the_papers_equations_halved(shape, seed):
    real, fake = logits(shape, seed), logits(shape, seed + 10)
    d_expected = (-probability(real, fake).log().mean() - (1 - probability(fake, real)).log().mean()) / 2
    g_expected = (-(1 - probability(real, fake)).log().mean() - probability(fake, real).log().mean()) / 2
    d_loss, g_loss = relativistic_discriminator_loss(real, fake), relativistic_generator_loss(real, fake)
    assert d_loss.shape == g_loss.shape == ()
    torch.testing.assert_close(d_loss, d_expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(g_loss, g_expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_relativistic_losses_are_log_2_for_equal_logits(shape):
    same = torch.full(shape, 3.7, dtype=torch.float64)
    for loss in (relativistic_discriminator_loss, relativistic_generator_loss):
        assert loss(same, same.clone()).item() == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_roles_of_real_and_fake_are_symmetric(shape):
    real, fake = logits(shape, 1), logits(shape, 2)
    assert torch.equal(relativistic_generator_loss(real, fake), relativistic_discriminator_loss(fake, real))


def test_relativistic_losses_depend_only_on_differences():
    real, fake = logits((6, 1), 1), logits((6, 1), 2)
    for loss in (relativistic_discriminator_loss, relativistic_generator_loss):
        torch.testing.assert_close(loss(real + 5, fake + 5), loss(real, fake))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_relativistic_losses_are_finite_for_extreme_logits(dtype):
    real = torch.full((4, 1), 1e4, dtype=dtype, requires_grad=True)
    fake = torch.full((4, 1), -1e4, dtype=dtype, requires_grad=True)
    good, bad = relativistic_discriminator_loss(real, fake), relativistic_generator_loss(real, fake)
    assert good.item() == 0
    assert bad.item() == 2e4
    (good + bad).backward()
    assert real.grad.isfinite().all()
    assert real.grad.sum().item() == pytest.approx(1)
    assert fake.grad.sum().item() == pytest.approx(-1)


@pytest.mark.parametrize("shape", SHAPES)
def test_discriminator_favours_real_and_generator_fake_logits(shape):
    real, fake = logits(shape, 1).requires_grad_(), logits(shape, 2).requires_grad_()
    d_real, d_fake = torch.autograd.grad(relativistic_discriminator_loss(real, fake), (real, fake))
    g_real, g_fake = torch.autograd.grad(relativistic_generator_loss(real, fake), (real, fake))
    assert (d_real < 0).all()
    assert (d_fake > 0).all()
    assert (g_real > 0).all()
    assert (g_fake < 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(dtype):
    real, fake = logits((64, 1), 1, dtype) + 100, logits((64, 1), 2, dtype) + 100
    for loss in (relativistic_discriminator_loss, relativistic_generator_loss):
        computed = loss(real, fake)
        assert computed.dtype == torch.float32
        assert computed.item() == pytest.approx(loss(real.double(), fake.double()).item(), rel=1e-5)


# The other GAN objectives


def penalties(objective, logit, label):
    """Return the published penalty of one logit of the discriminator (label 1 or 0), in plain arithmetic."""
    if objective == "vanilla":
        chance = 1 / (1 + math.exp(-logit))
        return -math.log(chance if label else 1 - chance)
    if objective == "lsgan":
        return (logit - label) ** 2
    return max(0.0, 1 - logit if label else 1 + logit)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("objective", ["vanilla", "lsgan", "hinge"])
def test_other_objectives_are_their_published_formulas(objective, shape):
    real, fake = logits(shape, 1), logits(shape, 2)
    reals, fakes = real.flatten().tolist(), fake.flatten().tolist()
    of_real = sum(penalties(objective, logit, 1) for logit in reals) / len(reals)
    of_fake = sum(penalties(objective, logit, 0) for logit in fakes) / len(fakes)
    # The generator wants its images to be labelled 1; for the hinge loss its penalty has no bound.
    generated = [-logit if objective == "hinge" else penalties(objective, logit, 1) for logit in fakes]
    loss = ADVERSARIAL_LOSSES[objective]
    assert loss.discriminator(real, fake).item() == pytest.approx((of_real + of_fake) / 2, rel=1e-12)
    assert loss.generator(real, fake).item() == pytest.approx(sum(generated) / len(fakes), rel=1e-12)


def test_the_default_objective_is_relativistic():
    real, fake = logits((6, 1), 1), logits((6, 1), 2)
    assert torch.equal(
        ADVERSARIAL_LOSSES["ragan"].discriminator(real, fake), relativistic_discriminator_loss(real, fake)
    )
    assert torch.equal(ADVERSARIAL_LOSSES["ragan"].generator(real, fake), relativistic_generator_loss(real, fake))


@pytest.mark.parametrize("objective", ADVERSARIAL_LOSSES)
def test_every_objective_sets_the_networks_against_each_other(objective):
    loss, real, fake = ADVERSARIAL_LOSSES[objective], logits((9, 1), 1) / 9, logits((9, 1), 2) / 9
    real, fake = real.requires_grad_(), fake.requires_grad_()
    d_real, d_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    (g_fake,) = torch.autograd.grad(loss.generator(real.detach(), fake), fake)
    assert d_real.sum() < 0 < d_fake.sum()
    assert (g_fake < 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("objective", ADVERSARIAL_LOSSES)
def test_every_objective_computes_half_precision_in_float32(objective, dtype):
    loss, real, fake = ADVERSARIAL_LOSSES[objective], logits((64, 1), 1, dtype), logits((64, 1), 2, dtype)
    for each in (loss.discriminator, loss.generator):
        computed = each(real, fake)
        assert computed.dtype == torch.float32
        assert computed.item() == pytest.approx(each(real.double(), fake.double()).item(), rel=1e-5)


def test_content_distances_match_pytorch_on_random_images():
    fake, real = images(2, 4, 5, 7), images(2, 4, 5, 7, seed=1)
    assert torch.equal(ContentLoss("l1")(fake, real), F.l1_loss(fake, real))
    assert torch.equal(ContentLoss("l2")(fake, real), F.mse_loss(fake, real))


# The artefact loss


def expected_artifact_loss(fake, averaged, real):
    """Compute LDL's formula pixel by pixel with NumPy."""
    total, (batch, channels, height, width) = 0.0, fake.shape
    for b in range(batch):
        residual, averaged_residual = (np.abs(real[b] - image[b]).sum(0) for image in (fake, averaged))
        overall = residual.var(ddof=1) ** 0.2
        mirrored = np.pad(residual, 3, mode="reflect")
        for y in range(height):
            for x in range(width):
                if residual[y, x] >= averaged_residual[y, x]:
                    weight = overall * mirrored[y : y + 7, x : x + 7].var(ddof=1)
                    total += weight * np.abs(fake[b, :, y, x] - real[b, :, y, x]).sum()
    return total / (batch * channels * height * width)


@pytest.mark.parametrize("channels", [1, 3])
def test_artifact_loss_is_the_formula_of_ldl(channels):
    fake, averaged, real = (images(2, channels, 9, 12, seed=seed).double() for seed in range(3))
    loss = artifact_loss(fake, averaged, real)
    assert loss.item() == pytest.approx(expected_artifact_loss(*(x.numpy() for x in (fake, averaged, real))), rel=1e-9)
    in_float32 = artifact_loss(fake.float(), averaged.float(), real.float())
    assert in_float32.dtype == torch.float32
    assert in_float32.item() == pytest.approx(loss.item(), rel=1e-4)


def test_artifact_loss_is_zero_where_the_average_is_worse():
    fake, real = images(1, 3, 8, 8), images(1, 3, 8, 8, seed=1)
    assert artifact_loss(fake, real + 3, real).item() == 0
    assert artifact_loss(fake, fake, real).item() > 0  # as in the first step


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_gradient_of_the_artifact_loss_is_finite_for_even_residuals(shift):
    real = images(1, 3, 8, 8)
    fake = (real + shift).requires_grad_()
    artifact_loss(fake, real, real).backward()
    assert fake.grad.isfinite().all()


def test_gradient_of_the_artifact_loss_flows_through_the_map():
    fake, averaged, real = (images(1, 3, 6, 7, seed=seed).double() for seed in range(3))
    fake.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: artifact_loss(x, averaged, real), (fake,))
