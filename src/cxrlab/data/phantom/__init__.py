"""Drawn radiographs: a number of patients and a seed come in, pictures with findings and boxes go out."""

from cxrlab.data.phantom.patients import FINDINGS, Anatomy, Exposure, Radiograph, sample
from cxrlab.data.phantom.render import draw

__all__ = ["FINDINGS", "Anatomy", "Exposure", "Radiograph", "draw", "sample"]
