"""Random augmentation of a whole batch at once, on the device, each image with its own parameters."""

from cxrlab.augment.augmentation import NoAugment, RandomAugment

__all__ = ["NoAugment", "RandomAugment"]
