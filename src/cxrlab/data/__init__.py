"""From a raw data set on disk to batches on the device."""
