"""Callbacks: the side effects of training, above all the files that a run leaves."""
