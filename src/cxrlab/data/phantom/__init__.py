"""Drawn radiographs of drawn patients."""
