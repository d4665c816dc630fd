"""Results come in, pages go out: one HTML file without network or script, its figures, and a model card.

A section of one's own is a :class:`Section`, put together from the functions whose names end in ``_html``.
"""

from cxrlab.report.comparison_page import write_comparison
from cxrlab.report.evaluation_page import (
    SECTIONS,
    Evaluation,
    write_evaluation,
    write_report,
    write_results,
)
from cxrlab.report.html import figure_html, paragraph_html, table_html
from cxrlab.report.model_info import ModelInfo, NetworkInfo, Session, TrainingData
from cxrlab.report.section import PageContext, Section, load_sections
from cxrlab.report.tables import Cell, Row, Table

__all__ = [
    "SECTIONS",
    "Cell",
    "Evaluation",
    "ModelInfo",
    "NetworkInfo",
    "PageContext",
    "Row",
    "Section",
    "Session",
    "Table",
    "TrainingData",
    "figure_html",
    "load_sections",
    "paragraph_html",
    "table_html",
    "write_comparison",
    "write_evaluation",
    "write_report",
    "write_results",
]
