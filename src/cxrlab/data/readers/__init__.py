"""Readers: a raw data set on disk -> a manifest, one module for each way a data set lies there."""
