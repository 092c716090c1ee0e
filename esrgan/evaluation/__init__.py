"""Evaluate models on datasets against bicubic, with confidence intervals for the differences."""

from esrgan.evaluation.html_report import render_html
from esrgan.evaluation.markdown import render_dataset, render_markdown
from esrgan.evaluation.measuring import EvaluationOptions
from esrgan.evaluation.results import DatasetEvaluation, Evaluation, ImageResult
from esrgan.evaluation.run import evaluate, unique_names

__all__ = [
    "DatasetEvaluation",
    "Evaluation",
    "EvaluationOptions",
    "ImageResult",
    "evaluate",
    "render_dataset",
    "render_html",
    "render_markdown",
    "unique_names",
]
