"""A researcher's own package: it knows cxrlab, and cxrlab does not know it."""
