"""A model that leaves the laboratory.

In: a run, a checkpoint, an exported file or a shared folder. Out: a ``Model`` that predicts image files, and
what is made of its predictions elsewhere: exported files, shared folders, a service, DICOM results.
"""
