"""Heatmaps: where a network looked, drawn over the radiograph, and what can be said for and against them.

A classifier with predicted images comes in (``ExplainTask``, built by ``explain_task_of``); panels, and an
``ExplanationResult`` of the checks, which is ``explanation.json``, go out.
"""

from cxrlab.heatmaps.cases import case_table, choose_cases, choose_images, pick_cases
from cxrlab.heatmaps.checks import check_heatmaps, explain_training, save_checks
from cxrlab.heatmaps.drawing import Drawn, draw_panels, draw_task, write_gallery
from cxrlab.heatmaps.image_files import file_heatmaps
from cxrlab.heatmaps.methods import Explainer, check_fit
from cxrlab.heatmaps.results import ExplanationResult, read_explanation
from cxrlab.heatmaps.settings import CHECKS, METHOD_NAMES, METHODS, TRAINING_CHECKS, ExplanationSettings
from cxrlab.heatmaps.task import ExplainTask, best_labels, explain_task_of, predict_files, training_images

__all__ = [
    "CHECKS",
    "METHODS",
    "METHOD_NAMES",
    "TRAINING_CHECKS",
    "Drawn",
    "ExplainTask",
    "Explainer",
    "ExplanationResult",
    "ExplanationSettings",
    "best_labels",
    "case_table",
    "check_fit",
    "check_heatmaps",
    "choose_cases",
    "choose_images",
    "draw_panels",
    "draw_task",
    "explain_task_of",
    "explain_training",
    "file_heatmaps",
    "pick_cases",
    "predict_files",
    "read_explanation",
    "save_checks",
    "training_images",
    "write_gallery",
]
