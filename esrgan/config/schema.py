"""The keys of a configuration file, with their types, limits, defaults and descriptions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, Tag, model_validator
from pydantic import Discriminator as TagOf


def _require_int(value: object) -> object:
    if type(value) is not int:  # 4.0 == 4 and True == 1, so Literal would accept them
        raise ValueError
    return value


# JSON has lists but no tuples, and a strict tuple field rejects a list. The items stay strict.
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
    """A dataset given as a folder of HR images and, optionally, a folder of the matching LR images."""

    hr: _NonEmptyStr = Field(description="Folder of HR images.")
    lr: _NonEmptyStr | None = Field(
        default=None,
        description="Folder of the matching LR images; null = those in the folder of HR images, or downscaled ones.",
    )
    lr_template: _NonEmptyStr | None = Field(
        default=None,
        description="Names of the LR images without suffix, such as {stem}_small; null = one of the usual schemes.",
    )
    hr_template: _NonEmptyStr = Field(
        default="{stem}", description="Names of the HR images without suffix, for use with lr_template."
    )


# The tag selects one alternative by type; otherwise a mistake in an object would be reported once per alternative.
_TAGS = ("name", "folders")
_Dataset = Annotated[
    Annotated[_NonEmptyStr, Tag(_TAGS[0])] | Annotated[FolderPair, Tag(_TAGS[1])],
    TagOf(lambda value: _TAGS[isinstance(value, (dict, FolderPair))]),
]
_Datasets = Annotated[tuple[_Dataset, ...], _AcceptList]


class DegradationRound(_Section):
    """One round of blur, resizing, noise and JPEG; names and defaults are those of Real-ESRGAN."""

    blur_prob: _Probability = Field(default=1.0, description="Probability of blur.")
    sinc_prob: _Probability = Field(default=0.1, description="Probability that a blur kernel is a sinc filter.")
    kernel_prob: Annotated[
        tuple[_Probability, _Probability, _Probability, _Probability, _Probability, _Probability], _AcceptList
    ] = Field(
        default=(0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
        description="Probabilities of the other kernels: iso, aniso, generalized_iso, generalized_aniso, plateau_iso, "
        "plateau_aniso; they must sum to 1.",
    )
    blur_sigma: _PositiveRange = Field(
        default=(0.2, 3.0), description="Range of the standard deviation of the blur kernels, in px."
    )
    betag_range: _PositiveRange = Field(
        default=(0.5, 4.0), description="Range of the shape β of generalised Gaussian kernels; must contain 1."
    )
    betap_range: _PositiveRange = Field(
        default=(1.0, 2.0), description="Range of the shape β of plateau kernels; must contain 1."
    )
    resize_prob: Annotated[tuple[_Probability, _Probability, _Probability], _AcceptList] = Field(
        default=(0.2, 0.7, 0.1),
        description="Probabilities of upscaling, downscaling and keeping the size; they must sum to 1.",
    )
    resize_range: _PositiveRange = Field(
        default=(0.15, 1.5), description="Smallest and largest resize factor; the range must contain 1."
    )
    gaussian_noise_prob: _Probability = Field(
        default=0.5, description="Probability that the noise is Gaussian; otherwise it is Poisson."
    )
    noise_range: _NonNegativeRange = Field(
        default=(1.0, 30.0), description="Range of the standard deviation of Gaussian noise, in 8-bit levels."
    )
    poisson_scale_range: _NonNegativeRange = Field(
        default=(0.05, 3.0), description="Range of the factor on Poisson noise."
    )
    gray_noise_prob: _Probability = Field(
        default=0.4, description="Probability that the noise is the same on all channels."
    )
    jpeg_range: Annotated[tuple[_JpegQuality, _JpegQuality], _AcceptList] = Field(
        default=(30, 95), description="Lowest and highest JPEG quality."
    )


class SecondDegradationRound(DegradationRound):
    """The second round: milder, and its resize factor is relative to the size of the LR patch."""

    blur_prob: _Probability = Field(default=0.8, description="Probability of blur.")
    blur_sigma: _PositiveRange = Field(
        default=(0.2, 1.5), description="Range of the standard deviation of the blur kernels, in px."
    )
    resize_prob: Annotated[tuple[_Probability, _Probability, _Probability], _AcceptList] = Field(
        default=(0.3, 0.4, 0.3),
        description="Probabilities of upscaling, downscaling and keeping the size; they must sum to 1.",
    )
    resize_range: _PositiveRange = Field(
        default=(0.3, 1.2), description="Smallest and largest resize factor; the range must contain 1."
    )
    noise_range: _NonNegativeRange = Field(
        default=(1.0, 25.0), description="Range of the standard deviation of Gaussian noise, in 8-bit levels."
    )
    poisson_scale_range: _NonNegativeRange = Field(
        default=(0.05, 2.5), description="Range of the factor on Poisson noise."
    )


class Degradation(_Section):
    """Real-world degradation of HR patches instead of bicubic downscaling; the defaults are those of Real-ESRGAN."""

    first: DegradationRound = Field(default_factory=DegradationRound, description="First round.")
    second: SecondDegradationRound = Field(
        default_factory=SecondDegradationRound, description="Second round, which is milder."
    )
    final_sinc_prob: _Probability = Field(default=0.8, description="Probability of a final sinc filter.")
    gt_usm: bool = Field(default=True, description="Sharpen the HR patches with an unsharp mask.")


class PhotoDegradation(_Section):
    """Mild degradation of LR patches, as by cameras, phones and web sites; the defaults suit ordinary photographs."""

    clean_prob: _Probability = Field(default=0.15, description="Probability that an LR patch stays as it is.")
    earlier_jpeg_prob: _Probability = Field(
        default=0.3, description="Probability that the LR patch is made again from HR, compressed at a larger size."
    )
    earlier_factor_range: _PositiveRange = Field(
        default=(1.0, 2.5), description="Size at which it is compressed, relative to LR; at least 1."
    )
    earlier_jpeg_range: Annotated[tuple[_JpegQuality, _JpegQuality], _AcceptList] = Field(
        default=(80, 97), description="Lowest and highest quality of this earlier JPEG."
    )
    blur_prob: _Probability = Field(default=0.25, description="Probability of a Gaussian blur.")
    blur_sigma: _PositiveRange = Field(default=(0.3, 0.7), description="Range of its standard deviation, in px.")
    noise_prob: _Probability = Field(default=0.4, description="Probability of Gaussian noise.")
    noise_range: _NonNegativeRange = Field(
        default=(0.5, 5.0), description="Range of its standard deviation, in 8-bit levels."
    )
    gray_noise_prob: _Probability = Field(
        default=0.4, description="Probability that the noise is the same on all channels."
    )
    sharpen_prob: _Probability = Field(default=0.25, description="Probability of unsharp masking.")
    sharpen_range: _NonNegativeRange = Field(
        default=(0.1, 0.7), description="Share of the difference from the blurred patch that is added."
    )
    sharpen_sigma: _PositiveRange = Field(
        default=(0.5, 1.2), description="Range of the standard deviation of that blur, in px."
    )
    jpeg_prob: _Probability = Field(default=0.85, description="Probability of JPEG at the end.")
    jpeg_range: Annotated[tuple[_JpegQuality, _JpegQuality], _AcceptList] = Field(
        default=(60, 95), description="Lowest and highest JPEG quality."
    )
    full_chroma_prob: _Probability = Field(
        default=0.3, description="Probability that the chroma of a JPEG has full resolution (4:4:4); otherwise 4:2:0."
    )


class _Stage(_Section):
    num_epoch: _PositiveInt | None = Field(default=10000, description="Epochs, each of len(train) // batch_size steps.")
    num_steps: _PositiveInt | None = Field(default=None, description="Optimiser steps, instead of num_epoch.")
    cr_patch_size: _PatchSize = Field(default=(128, 128), description="HR patch size [H, W], px; null = whole images.")
    betas: _Betas = Field(default=(0.9, 0.999), description="β1 and β2 of Adam.")
    weight_decay: _NonNegativeFloat = Field(
        default=0.0, description="Decoupled weight decay, with which the optimiser is AdamW; 0 = Adam."
    )
    sched: Literal["step", "cosine"] = Field(
        default="step",
        description="Learning-rate schedule. step: sudden reductions; cosine: half a period of a cosine down to 0 over "
        "num_steps, which must be set.",
    )
    warmup_steps: _NonNegativeInt = Field(
        default=0, description="Steps over which learning rates grow linearly at the start of the stage."
    )
    train_datasets: Annotated[_Datasets, Field(min_length=1)] = Field(
        default=("div2k",),
        description='Training datasets: names, folders of HR images, or objects {"hr": FOLDER, "lr": FOLDER}.',
    )
    val_datasets: _Datasets = Field(
        default=("div2k",),
        description="Validation datasets, given in the same way; whole images are used. [] = no validation.",
    )
    degradation: Degradation | None = Field(
        default=None,
        description="Replace the datasets' LR patches with degraded HR patches; {} = Real-ESRGAN's settings, "
        "null = off.",
    )
    photo_degradation: PhotoDegradation | None = Field(
        default=None,
        description="Degrade the LR patches of the datasets a little, as cameras and web sites do; {} = the defaults, "
        "null = off.",
    )

    @model_validator(mode="before")
    @classmethod
    def _steps_replace_default_epochs(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("num_steps") is not None:
            return {"num_epoch": None, **data}
        return data


class Pretraining(_Stage):
    """The PSNR stage (the first): only the generator is trained, with the content loss."""

    lr: _PositiveFloat = Field(default=2e-4, description="Learning rate.")
    sched_step: _PositiveInt = Field(default=200000, description="Steps between reductions of the learning rate.")
    sched_gamma: _Gamma = Field(default=0.5, description="Factor on the learning rate at each reduction.")
    hard_transforms: bool = Field(default=False, description="Augment LR patches with JPEG and coarse dropout.")


class Training(_Stage):
    """The GAN stage (the second): generator and discriminator are trained against each other."""

    num_epoch: _PositiveInt | None = Field(default=8000, description="Epochs, each of len(train) // batch_size steps.")
    betas: _Betas = Field(default=(0.9, 0.99), description="β1 and β2 of Adam, for both networks.")
    g_lr: _PositiveFloat = Field(default=1e-4, description="Learning rate of the generator.")
    d_lr: _PositiveFloat = Field(default=1e-4, description="Learning rate of the discriminator.")
    g_sched_steps: _PositiveInts = Field(
        default=(50000, 100000, 200000, 300000), description="Steps at which g_lr is multiplied by g_sched_gamma."
    )
    d_sched_steps: _PositiveInts = Field(
        default=(50000, 100000, 200000, 300000), description="Steps at which d_lr is multiplied by d_sched_gamma."
    )
    g_sched_gamma: _Gamma = Field(default=0.5, description="Factor on g_lr at each of g_sched_steps.")
    d_sched_gamma: _Gamma = Field(default=0.5, description="Factor on d_lr at each of d_sched_steps.")
    gan_objective: Literal["ragan", "vanilla", "lsgan", "hinge"] = Field(
        default="ragan",
        description="Adversarial loss. ragan: relativistic average GAN, the paper's; vanilla: cross-entropy; lsgan: "
        "least squares; hinge: hinge loss.",
    )
    g_adversarial_loss_scaling: _NonNegativeFloat = Field(
        default=0.005,
        description="Weight of the adversarial loss (λ); 0 = off, without computing the discriminator.",
    )
    g_adversarial_ramp_steps: _NonNegativeInt = Field(
        default=0,
        description="Steps over which the weight of the adversarial loss grows linearly at the start of the stage.",
    )
    g_content_loss_scaling: _NonNegativeFloat = Field(default=0.01, description="Weight of the content loss (η).")
    d_pause_below: _PositiveFloat | None = Field(
        default=None,
        description="The discriminator pauses while its loss, smoothed over about 20 steps, is below this; null = "
        "never.",
    )
    g_artifact_loss_scaling: _NonNegativeFloat = Field(
        default=0.0, description="Weight of LDL's artefact loss, which needs the moving average (ema_decay); 0 = off."
    )
    g_consistency_loss_scaling: _NonNegativeFloat = Field(
        default=0.0, description="Weight of the consistency loss, which keeps the colours of large areas; 0 = off."
    )
    g_pattern_loss_scaling: _NonNegativeFloat = Field(
        default=0.0,
        description="Weight of the pattern loss, which avoids patterns that repeat with every LR pixel; 0 = off.",
    )


class Generator(_Section):
    """The generator: RRDBNet or the small SRVGGNetCompact."""

    type: Literal["rrdb", "compact"] = Field(
        default="rrdb",
        description="rrdb: RRDBNet, the network of ESRGAN; compact: SRVGGNetCompact, small and fast.",
    )
    rrdb_channels: _PositiveInt = Field(default=64, description="rrdb: feature channels of the trunk.")
    growth_channels: _PositiveInt = Field(
        default=32, description="rrdb: channels that each convolution of a dense block adds."
    )
    num_basic_blocks: _PositiveInt = Field(default=23, description="rrdb: number of RRDBs.")
    num_dense_blocks: _PositiveInt = Field(default=3, description="rrdb: residual dense blocks per RRDB.")
    num_residual_blocks: _PositiveInt = Field(default=5, description="rrdb: convolutions per residual dense block.")
    residual_scaling: _PositiveFloat = Field(default=0.2, description="rrdb: factor on every residual branch (β).")
    use_subpixel_conv: bool = Field(
        default=False, description="rrdb: upsample by PixelShuffle instead of nearest neighbour."
    )
    pixel_unshuffle: bool = Field(
        default=False, description="rrdb, for scale 1 and 2: fold pixels into channels first, then upsample by 4."
    )
    plus: bool = Field(default=False, description="rrdb: use the dense blocks of ESRGAN+.")
    small_init: Literal["all", "trunk"] = Field(
        default="all",
        description="rrdb: convolutions whose initial weights are scaled by 0.1: all of them (all) or only those of "
        "the RRDBs (trunk).",
    )
    num_feat: _PositiveInt = Field(default=64, description="compact: channels of the features.")
    num_conv: _NonNegativeInt = Field(default=16, description="compact: number of inner convolutions.")
    act_type: Literal["prelu", "relu", "leakyrelu"] = Field(default="prelu", description="compact: the activation.")


class Discriminator(_Section):
    """The discriminator: VGG-style or U-Net."""

    type: Literal["vgg", "vgg_basicsr", "unet"] = Field(
        default="vgg",
        description="vgg: one logit per image; vgg_basicsr: the same with the layers of BasicSR, for its weights; "
        "unet: one logit per pixel.",
    )
    vgg_blk_ch: Annotated[_PositiveInts, Field(min_length=1)] = Field(
        default=(64, 64, 128, 128, 256, 256, 512, 512),
        description="vgg: output channels of each convolution; one that keeps the number of channels has stride 2 "
        "(vgg_basicsr: every second one).",
    )
    fc_features: _PositiveInts = Field(default=(100,), description="vgg: widths of the hidden fully connected layers.")
    num_features: _PositiveInt = Field(default=64, description="unet: channels of the first convolution.")


class ContentLoss(_Section):
    """The pixel loss of the PSNR stage and, scaled, of the GAN stage."""

    loss_f: Literal["l1", "l2", "mse"] = Field(
        default="l1", description="Pixel-wise distance; l2 and mse are the same."
    )


class PerceptualLoss(_Section):
    """The perceptual loss: a distance between VGG features."""

    layer_weights: Annotated[dict[_LayerName, _PositiveFloat], Field(min_length=1)] = Field(
        default={"conv5_4": 1.0},
        description="Weight of each layer; convB_I is before the activation, reluB_I after it.",
    )
    vgg_type: Literal["vgg11", "vgg13", "vgg16", "vgg19"] = Field(default="vgg19", description="VGG network.")
    criterion: Literal["l1", "l2"] = Field(default="l1", description="Distance between the features.")
    normalize_input: bool = Field(
        default=True, description="Normalise the input with the mean and standard deviation of ImageNet."
    )
    normalize_loss: bool = Field(default=False, description="Divide by the sum of layer_weights.")
    weights: _NonEmptyStr | None = Field(
        default=None, description="State-dict file in torchvision's layout; null = torchvision's ImageNet weights."
    )
    optional: bool = Field(
        default=False,
        description="Train without this loss if weights is null and torchvision's weights are not on this machine.",
    )


class Logging(_Section):
    """Logging during training."""

    interval: _PositiveInt | None = Field(
        default=None, description="Steps between log lines; null = a twentieth of the stage, but at most 100."
    )
    tensorboard: bool = Field(default=True, description="Write TensorBoard event files.")
    wandb: Literal["disabled", "offline", "online"] = Field(default="disabled", description="Mode of Weights & Biases.")
    wandb_project: _NonEmptyStr = Field(default="esrgan", description="Project of Weights & Biases.")
    wandb_entity: _NonEmptyStr | None = Field(
        default=None, description="User or team of Weights & Biases; null = your default entity."
    )
    num_images: _NonNegativeInt = Field(default=4, description="Number of validation images in the logged panels.")


class Config(_Section):
    """The configuration of a training run; ``Config()`` is the default run.

    Example:
        >>> from esrgan import Config
        >>> config = Config.model_validate({"batch_size": 8, "generator": {"num_basic_blocks": 6}})
        >>> config.batch_size, config.generator.num_basic_blocks, config.training.g_lr
        (8, 6, 0.0001)
    """

    # Only editors read this key. It is dropped, so files that differ only in it yield equal configurations.
    json_schema: Annotated[str | None, AfterValidator(lambda _: None)] = Field(
        default=None, alias="$schema", exclude=True, description="JSON schema for editors; otherwise ignored."
    )
    scale_factor: _Scale = Field(default=4, description="Upscaling factor.")
    batch_size: _PositiveInt = Field(default=16, description="Patches per optimiser step, summed over all processes.")
    accumulation: _PositiveInt = Field(
        default=1,
        description="Parts into which each process splits its batch to save memory; gradients are accumulated.",
    )
    gradient_clip: _PositiveFloat | None = Field(default=None, description="Maximum gradient norm; null = no clipping.")
    activation_checkpointing: bool = Field(
        default=False, description="Recompute the RRDBs in the backward pass, to save memory."
    )
    img_channels: _Channels = Field(default=3, description="Image channels: 1 = grey, 3 = RGB, 4 = RGB with alpha.")
    seed: _NonNegativeInt = Field(default=0, description="Seed for initialisation, data order and augmentation.")
    num_workers: _NonNegativeInt | None = Field(
        default=None,
        description="Loader processes; null = 0 on a CPU, otherwise chosen from the number of cores.",
    )
    data_root: _NonEmptyStr | None = Field(
        default=None, description="Folder of the named datasets; null = $ESRGAN_DATA or data."
    )
    cache_dir: _NonEmptyStr | None = Field(
        default=None, description="Folder for the cache of decoded images; null = the folder cache in data_root."
    )
    ema_decay: _Decay = Field(
        default=0.999, description="Decay of the moving average of the generator's weights; 0 = off."
    )
    autocast_dtype: Literal["auto", "bfloat16", "float16"] = Field(
        default="auto",
        description="Data type for --autocast; auto = float16 on GPUs without native bfloat16, else bfloat16.",
    )
    spatial_transforms: Literal["d4", "flip_or_transpose", "none"] = Field(
        default="d4",
        description="d4: the eight flips and rotations, equally likely; flip_or_transpose: with probability 0.5 a flip "
        "(0.75) or a transposition (0.25); none: no augmentation.",
    )
    keep_checkpoints: _PositiveInt = Field(default=2, description="Number of newest checkpoints to keep per stage.")
    checkpoint_minutes: _PositiveFloat = Field(
        default=5.0, description="Minutes after which a checkpoint is written, in addition to those after epochs."
    )
    validation_interval: _PositiveInt | None = Field(
        default=None, description="Steps between validations; null = a twentieth of the stage, but at most 5,000."
    )
    pretraining: Pretraining = Field(default_factory=Pretraining, description="First stage (PSNR): content loss only.")
    training: Training = Field(
        default_factory=Training, description="Second stage (GAN): content, perceptual and adversarial loss."
    )
    generator: Generator = Field(default_factory=Generator, description="Generator, the network that upscales.")
    discriminator: Discriminator = Field(default_factory=Discriminator, description="Discriminator of the GAN stage.")
    content_loss: ContentLoss = Field(default_factory=ContentLoss, description="Pixel loss.")
    perceptual_loss: PerceptualLoss = Field(default_factory=PerceptualLoss, description="VGG feature loss.")
    logging: Logging = Field(default_factory=Logging, description="Log lines, TensorBoard, Weights & Biases.")

    @property
    def stages(self) -> dict[str, Pretraining | Training]:
        """The sections of both stages by their names."""
        return {"pretraining": self.pretraining, "training": self.training}

    def to_dict(self) -> dict[str, Any]:
        """Return all keys, including defaults, as JSON types."""
        return self.model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file."""
    return Config.model_json_schema() | {"description": "The configuration of a training run."}
