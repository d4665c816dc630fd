"""Random changes of a whole batch, on the device: uint8 images come in, float32 images go out, 0 to 255 both.

Each image is changed by its own random amounts; in training only.
"""

from cxrlab.augment.augmentation import NoAugment, RandomAugment

__all__ = ["NoAugment", "RandomAugment"]
