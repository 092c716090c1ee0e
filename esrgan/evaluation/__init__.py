"""Evaluate models on datasets against bicubic, with confidence intervals for the differences."""

from esrgan.evaluation.cache import ResultCache
from esrgan.evaluation.evaluate import (
    BICUBIC,
    BicubicMethod,
    DatasetImage,
    Method,
    ModelMethod,
    check_out_dir,
    evaluate,
    load_image_versions,
    unique_names,
)
from esrgan.evaluation.results import Evaluation
from esrgan.evaluation.scorers import Scorer, describe_conventions, make_scorers

__all__ = [
    "BICUBIC",
    "BicubicMethod",
    "DatasetImage",
    "Evaluation",
    "Method",
    "ModelMethod",
    "ResultCache",
    "Scorer",
    "check_out_dir",
    "describe_conventions",
    "evaluate",
    "load_image_versions",
    "make_scorers",
    "unique_names",
]
