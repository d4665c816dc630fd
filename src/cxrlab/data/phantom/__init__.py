"""Drawn radiographs: a number of patients and a seed come in, pictures with findings and boxes go out.

``draw_pneumonia_folder`` and ``draw_cell_folder`` write folders as published sets have them, for lessons.
"""

from cxrlab.data.phantom.cells import draw_cell_folder
from cxrlab.data.phantom.patients import FINDINGS, Anatomy, Exposure, Radiograph, sample
from cxrlab.data.phantom.pneumonia import draw_pneumonia_folder
from cxrlab.data.phantom.render import draw

__all__ = [
    "FINDINGS",
    "Anatomy",
    "Exposure",
    "Radiograph",
    "draw",
    "draw_cell_folder",
    "draw_pneumonia_folder",
    "sample",
]
