"""Images in, logits out, no Lightning: networks, their preprocessing, and weights from elsewhere.

``TimmNetwork`` and ``SequentialNetwork`` are cxrlab's own; any other ``nn.Module`` becomes a ``Network`` by
``wrap``. ``build_network`` makes one from the plain description in a checkpoint: cxrlab's own classes, and
those trusted.
"""

from cxrlab.models.lora import LoRA
from cxrlab.models.network import Network, build_network, make_network, wrap
from cxrlab.models.preprocess import Preprocess
from cxrlab.models.sequential import SequentialNetwork
from cxrlab.models.timm_network import TimmNetwork

__all__ = [
    "LoRA",
    "Network",
    "Preprocess",
    "SequentialNetwork",
    "TimmNetwork",
    "build_network",
    "make_network",
    "wrap",
]
