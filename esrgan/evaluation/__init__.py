"""The referee: models measured on datasets, next to bicubic, with what the figures can and cannot tell."""

from esrgan.evaluation.cache import FigureCache
from esrgan.evaluation.measuring import (
    BICUBIC,
    Bicubic,
    Item,
    Method,
    Model,
    check_folder,
    evaluate,
    load_pictures,
    unique_names,
)
from esrgan.evaluation.meters import Meter, convention, make_meters
from esrgan.evaluation.results import Evaluation

__all__ = [
    "BICUBIC",
    "Bicubic",
    "Evaluation",
    "FigureCache",
    "Item",
    "Meter",
    "Method",
    "Model",
    "check_folder",
    "convention",
    "evaluate",
    "load_pictures",
    "make_meters",
    "unique_names",
]
