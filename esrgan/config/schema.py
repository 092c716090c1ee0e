"""Every key of a configuration file, with its type, limits, default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, Tag, model_validator
from pydantic import Discriminator as TagOf


def _require_int(value: object) -> object:
    if type(value) is not int:  # 4.0 == 4 and True == 1, so Literal alone would take them
        raise ValueError
    return value


# JSON has lists only, and strict tuples would refuse them; their items stay strict.
_AcceptList = Strict(False)
_NonNegativeInt = Annotated[int, Field(ge=0)]
_PositiveInt = Annotated[int, Field(ge=1)]
_PositiveFloat = Annotated[float, Field(gt=0)]
_NonNegativeFloat = Annotated[float, Field(ge=0)]
_Decay = Annotated[float, Field(ge=0, lt=1)]
_Gamma = Annotated[float, Field(gt=0, le=1)]
_NonEmptyStr = Annotated[str, Field(min_length=1)]
_Betas = Annotated[tuple[_Decay, _Decay], _AcceptList]
_PatchSize = Annotated[tuple[_PositiveInt, _PositiveInt], _AcceptList] | None
_PositiveInts = Annotated[tuple[_PositiveInt, ...], _AcceptList]
_Scale = Annotated[Literal[1, 2, 4, 8], BeforeValidator(_require_int)]
_Channels = Annotated[Literal[1, 3, 4], BeforeValidator(_require_int)]
_Probability = Annotated[float, Field(ge=0, le=1)]
_PositiveRange = Annotated[tuple[_PositiveFloat, _PositiveFloat], _AcceptList]
_NonNegativeRange = Annotated[tuple[_NonNegativeFloat, _NonNegativeFloat], _AcceptList]
_JpegQuality = Annotated[int, Field(ge=1, le=100)]
_LayerName = Annotated[str, Field(pattern=r"^(conv|relu)[1-5]_[1-4]$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FolderPair(_Section):
    """A dataset given as a folder of HR images, with the folder of their LR counterparts where there is one."""

    hr: _NonEmptyStr = Field(description="Folder of HR images.")
    lr: _NonEmptyStr | None = Field(
        default=None, description="Folder of LR images of the same names; null = made from HR."
    )


# The tag decides by type, so that a mistake inside an object is one error and not one for each alternative.
_TAGS = ("name", "folders")
_Dataset = Annotated[
    Annotated[_NonEmptyStr, Tag(_TAGS[0])] | Annotated[FolderPair, Tag(_TAGS[1])],
    TagOf(lambda value: _TAGS[isinstance(value, (dict, FolderPair))]),
]
_Datasets = Annotated[tuple[_Dataset, ...], _AcceptList, Field(min_length=1)]


class DegradationRound(_Section):
    """A round of blur, resizing, noise and JPEG; the names and defaults are Real-ESRGAN's."""

    blur_prob: _Probability = Field(default=1.0, description="Chance of blur.")
    sinc_prob: _Probability = Field(default=0.1, description="Chance of a sinc kernel, where there is blur.")
    kernel_prob: Annotated[
        tuple[_Probability, _Probability, _Probability, _Probability, _Probability, _Probability], _AcceptList
    ] = Field(
        default=(0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
        description="Chances of iso, aniso, generalized_iso, generalized_aniso, plateau_iso, plateau_aniso kernels.",
    )
    blur_sigma: _PositiveRange = Field(default=(0.2, 3.0), description="Standard deviation of kernels, px.")
    betag_range: _PositiveRange = Field(default=(0.5, 4.0), description="Shape of generalised Gaussians, around 1.")
    betap_range: _PositiveRange = Field(default=(1.0, 2.0), description="Shape of plateaus, around 1.")
    resize_prob: Annotated[tuple[_Probability, _Probability, _Probability], _AcceptList] = Field(
        default=(0.2, 0.7, 0.1), description="Chances of enlarging, reducing, keeping the size."
    )
    resize_range: _PositiveRange = Field(
        default=(0.15, 1.5), description="Least and greatest factor of the size, around 1."
    )
    gaussian_noise_prob: _Probability = Field(default=0.5, description="Chance of Gaussian noise; else Poisson.")
    noise_range: _NonNegativeRange = Field(
        default=(1.0, 30.0), description="Deviation of Gaussian noise, levels of 255."
    )
    poisson_scale_range: _NonNegativeRange = Field(default=(0.05, 3.0), description="Factor of Poisson noise.")
    gray_noise_prob: _Probability = Field(default=0.4, description="Chance of noise without colour.")
    jpeg_range: Annotated[tuple[_JpegQuality, _JpegQuality], _AcceptList] = Field(
        default=(30, 95), description="JPEG quality."
    )


class SecondDegradationRound(DegradationRound):
    """The same, milder; its resizing starts from the size of the LR patch."""

    blur_prob: _Probability = Field(default=0.8, description="Chance of blur.")
    blur_sigma: _PositiveRange = Field(default=(0.2, 1.5), description="Standard deviation of kernels, px.")
    resize_prob: Annotated[tuple[_Probability, _Probability, _Probability], _AcceptList] = Field(
        default=(0.3, 0.4, 0.3), description="Chances of enlarging, reducing, keeping the size."
    )
    resize_range: _PositiveRange = Field(
        default=(0.3, 1.2), description="Least and greatest factor of the size, around 1."
    )
    noise_range: _NonNegativeRange = Field(
        default=(1.0, 25.0), description="Deviation of Gaussian noise, levels of 255."
    )
    poisson_scale_range: _NonNegativeRange = Field(default=(0.05, 2.5), description="Factor of Poisson noise.")


class Degradation(_Section):
    """Real-world degradation of HR patches in place of bicubic reduction; the defaults are Real-ESRGAN's."""

    first: DegradationRound = Field(default_factory=DegradationRound, description="The first round.")
    second: SecondDegradationRound = Field(default_factory=SecondDegradationRound, description="The second round.")
    final_sinc_prob: _Probability = Field(default=0.8, description="Chance of a sinc filter at the end.")
    gt_usm: bool = Field(default=True, description="Sharpen the HR patches.")


class _Stage(_Section):
    num_epoch: _PositiveInt | None = Field(default=10000, description="Epochs of len(train) // batch_size steps.")
    num_steps: _PositiveInt | None = Field(default=None, description="Optimiser steps, instead of num_epoch.")
    cr_patch_size: _PatchSize = Field(default=(128, 128), description="HR crop [H, W]; null = whole images.")
    betas: _Betas = Field(default=(0.9, 0.999), description="Adam's running-average coefficients.")
    train_datasets: _Datasets = Field(default=("div2k",), description='Names, folders or {"hr", "lr"} pairs.')
    val_datasets: _Datasets = Field(default=("div2k",), description="The same to validate on, as whole images.")

    degradation: Degradation | None = Field(
        default=None, description="{} trains on Real-ESRGAN's LR patches, not on the datasets'; null = off."
    )

    @model_validator(mode="before")
    @classmethod
    def _steps_replace_default_epochs(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("num_steps") is not None:
            return {"num_epoch": None, **data}
        return data


class Pretraining(_Stage):
    """The first stage: the generator alone, on the content loss."""

    lr: _PositiveFloat = Field(default=2e-4, description="Learning rate.")
    sched_step: _PositiveInt = Field(default=200000, description="Steps between changes of the rate.")
    sched_gamma: _Gamma = Field(default=0.5, description="Factor of the rate at each change.")
    hard_transforms: bool = Field(default=False, description="JPEG and coarse dropout on the LR patch.")


class Training(_Stage):
    """The second stage: generator against discriminator."""

    num_epoch: _PositiveInt | None = Field(default=8000, description="Epochs of len(train) // batch_size steps.")
    betas: _Betas = Field(default=(0.9, 0.99), description="Adam's running-average coefficients, both networks.")
    g_lr: _PositiveFloat = Field(default=1e-4, description="Learning rate of the generator.")
    d_lr: _PositiveFloat = Field(default=1e-4, description="Learning rate of the discriminator.")
    g_sched_steps: _PositiveInts = Field(default=(50000, 100000, 200000, 300000), description="Steps where it changes.")
    d_sched_steps: _PositiveInts = Field(default=(50000, 100000, 200000, 300000), description="Steps where it changes.")
    g_sched_gamma: _Gamma = Field(default=0.5, description="Factor of the generator's rate there.")
    d_sched_gamma: _Gamma = Field(default=0.5, description="Factor of the discriminator's rate there.")
    g_adversarial_loss_scaling: _NonNegativeFloat = Field(
        default=0.005, description="Weight of the adversarial loss (λ)."
    )
    g_content_loss_scaling: _NonNegativeFloat = Field(default=0.01, description="Weight of the content loss (η).")


class Generator(_Section):
    """RRDBNet."""

    rrdb_channels: _PositiveInt = Field(default=64, description="Channels between the RRDBs.")
    growth_channels: _PositiveInt = Field(default=32, description="Channels each convolution of an RDB adds.")
    num_basic_blocks: _PositiveInt = Field(default=23, description="Number of RRDBs.")
    num_dense_blocks: _PositiveInt = Field(default=3, description="RDBs in an RRDB.")
    num_residual_blocks: _PositiveInt = Field(default=5, description="Convolutions in an RDB.")
    residual_scaling: _PositiveFloat = Field(default=0.2, description="Factor of every residual (β).")
    use_subpixel_conv: bool = Field(default=False, description="Upsample by PixelShuffle, not nearest.")
    pixel_unshuffle: bool = Field(default=False, description="Scale 1, 2: fold the input, upsample by 4.")
    small_init: Literal["all", "trunk"] = Field(default="all", description="Where the initial weights are ×0.1.")


class Discriminator(_Section):
    """VGG-style or U-Net discriminator."""

    type: Literal["vgg", "unet"] = Field(default="vgg", description="One logit per image, or per pixel.")
    vgg_blk_ch: Annotated[_PositiveInts, Field(min_length=1)] = Field(
        default=(64, 64, 128, 128, 256, 256, 512, 512),
        description="vgg: channels of the blocks; stride 2 where in = out.",
    )
    fc_features: _PositiveInts = Field(default=(100,), description="vgg: widths of the hidden linear layers.")
    num_features: _PositiveInt = Field(default=64, description="unet: channels of the first convolution.")


class ContentLoss(_Section):
    """The pixel loss, of the first stage and (scaled) of the second."""

    loss_f: Literal["l1", "l2", "mse"] = Field(default="l1", description="l1, or l2 (also called mse).")


class PerceptualLoss(_Section):
    """The distance between VGG features."""

    layer_weights: Annotated[dict[_LayerName, _PositiveFloat], Field(min_length=1)] = Field(
        default={"conv5_4": 1.0}, description="Weight per layer: convB_I before, reluB_I after activation."
    )
    vgg_type: Literal["vgg11", "vgg13", "vgg16", "vgg19"] = Field(default="vgg19", description="The network.")
    criterion: Literal["l1", "l2"] = Field(default="l1", description="Distance between features.")
    normalize_input: bool = Field(default=True, description="Subtract ImageNet's mean and divide by its deviation.")
    normalize_loss: bool = Field(default=False, description="Divide by the sum of layer_weights.")
    weights: _NonEmptyStr | None = Field(default=None, description="State-dict file; null = torchvision's ImageNet.")
    optional: bool = Field(default=False, description="Do without it if its weights are not here.")


class Logging(_Section):
    """What is written while training."""

    interval: _PositiveInt = Field(default=100, description="Steps between log lines.")
    tensorboard: bool = Field(default=True, description="Write TensorBoard event files.")
    wandb: Literal["disabled", "offline", "online"] = Field(default="disabled", description="Weights & Biases mode.")
    wandb_project: _NonEmptyStr = Field(default="esrgan", description="Weights & Biases project.")
    wandb_entity: _NonEmptyStr | None = Field(
        default=None, description="Weights & Biases user or team; null = its default."
    )
    num_images: _NonNegativeInt = Field(default=4, description="Fixed validation images in the panels.")


class Config(_Section):
    """Everything a run needs. ``Config()`` is the default run."""

    # Editors read it; it says nothing about the run, so two files that differ in it give equal configurations.
    json_schema: Annotated[str | None, AfterValidator(lambda _: None)] = Field(
        default=None, alias="$schema", exclude=True, description="Schema for editors; ignored."
    )
    scale_factor: _Scale = Field(default=4, description="Upscaling factor of network and data.")
    batch_size: _PositiveInt = Field(default=16, description="Patches per optimiser step, over all ranks.")
    accumulation: _PositiveInt = Field(
        default=1, description="Parts of a process's batch computed one after the other."
    )
    gradient_clip: _PositiveFloat | None = Field(default=None, description="Greatest length of a gradient; null = any.")
    activation_checkpointing: bool = Field(
        default=False, description="Compute the RRDBs again going backward, to save memory."
    )
    img_channels: _Channels = Field(default=3, description="1 = grey, 3 = RGB, 4 = RGB with alpha.")
    seed: _NonNegativeInt = Field(default=0, description="Seed of initialisation, order and augmentation.")
    num_workers: _NonNegativeInt | None = Field(default=None, description="Loader processes; null = by CPUs.")
    data_root: _NonEmptyStr | None = Field(default=None, description="Datasets; null = $ESRGAN_DATA or data.")
    cache_dir: _NonEmptyStr | None = Field(default=None, description="Decoded images; null = data root's cache.")
    ema_decay: _Decay = Field(default=0.999, description="Decay of the averaged generator; 0 = off.")
    autocast_dtype: Literal["auto", "bfloat16", "float16"] = Field(
        default="auto", description="What --autocast uses; auto = bfloat16 where native, else float16 on CUDA."
    )
    spatial_transforms: Literal["d4", "flip_or_transpose", "none"] = Field(
        default="d4",
        description="The eight flips and rotations; or, p 0.5, one of flip 0.75 and transpose 0.25; or none.",
    )
    keep_checkpoints: _PositiveInt = Field(default=2, description="Newest checkpoints kept of each stage.")
    validation_interval: _PositiveInt = Field(default=5000, description="Steps between validations.")
    pretraining: Pretraining = Field(default_factory=Pretraining, description="First stage, content loss only.")
    training: Training = Field(default_factory=Training, description="Second stage, adversarial.")
    generator: Generator = Field(default_factory=Generator, description="The network that upscales.")
    discriminator: Discriminator = Field(default_factory=Discriminator, description="Its adversary.")
    content_loss: ContentLoss = Field(default_factory=ContentLoss, description="Pixel loss.")
    perceptual_loss: PerceptualLoss = Field(default_factory=PerceptualLoss, description="VGG feature loss.")
    logging: Logging = Field(default_factory=Logging, description="Log lines, TensorBoard, Weights & Biases.")

    def to_dict(self) -> dict[str, Any]:
        """Return every key, defaults included, as JSON types."""
        return self.model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file."""
    return Config.model_json_schema()
