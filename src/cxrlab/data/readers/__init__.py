"""Readers: the folder of a raw data set comes in, its manifest goes out; one module a data set or layout.

``nih.read``, ``table.read``, ``synthetic.read``, and in ``folders`` one for each data set that keeps its
classes in folders. A reader of one's own is any function ``root -> Manifest``.
"""

from cxrlab.data.readers import folders, nih, synthetic, table

__all__ = ["folders", "nih", "synthetic", "table"]
