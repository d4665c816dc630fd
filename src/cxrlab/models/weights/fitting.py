"""A file's weights brought to one network: under its names, at its size and channels; and what lacks.

First the names as they are, then the other layouts, then timm's own conversion of published weights to the
architecture, which also resamples what depends on the size of the image, the patch or the window.
"""

import bisect
import contextlib
import inspect
import io
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from cxrlab.models.weights.layouts import Weights, best_prefix, common_prefixes, spellings, without_prefix

# Parameters of a classification head, in the spellings of timm and torchvision.
_HEAD = re.compile(r"(^|\.)(classifier|fc|head|head_dist|heads)(\.|$)")

# Computed anew by the network, used in pretraining alone, or left behind by a program that counts operations.
_NO_PART = re.compile(
    r"(^|\.)(relative_position_index|relative_coords_table|attn_mask|bias_mask|periods|rope\.\w+|freqs_\w+|"
    r"num_batches_tracked|total_ops|total_params|mask_token)$"
)

# Tokens that a network without them leaves out of what it computes.
_TOKEN = re.compile(r"(cls|dist|reg|register|storage)_tokens?|pos_embed")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """Weights under a network's names, and how well they fit.

    Attributes:
        weights: Those that the network has a place for, by its names.
        unused: Names of those that it has none for, without what stood before all of them.
        outside: Names of the file that stand beside the network, such as those of a head.
        missing: Names of the network without a weight, sorted.
        misfits: Shape in the file and in the network where they differ, by name.
        inner: Those of ``unused`` that change what the network computes: the file is of another one.
        layout: Whose names were translated; empty for none.
        resampled: Shape before and after, by name, where it depends on the size of images.
        is_norm_moved: Whether the normalisation before pooling starts that behind it, as timm has EVA-02's.
        adapted: First layer whose number of input channels was changed, with the file's number.
    """

    weights: Mapping[str, Tensor]
    unused: tuple[str, ...]
    outside: tuple[str, ...]
    missing: tuple[str, ...]
    misfits: Mapping[str, tuple[Shape, Shape]]
    inner: tuple[str, ...]
    layout: str
    resampled: Mapping[str, tuple[Shape, Shape]]
    is_norm_moved: bool
    adapted: tuple[str, int] | None

    @property
    def faults(self) -> tuple[int, int]:
        """How many weights of the network are missing or misfits, and how many of the file change it."""
        return len(self.missing) + len(self.misfits), len(self.inner)


def fit(network: nn.Module, weights: Weights) -> Fit:
    """Return how the weights of a file fit a network: the first way that fits wholly, else the nearest.

    Args:
        network: On any device, also ``meta``; it is left as it is.
        weights: As the file holds them.
    """
    best: Fit | None = None
    for candidate in _ways(network, weights):
        if best is None or candidate.faults < best.faults:
            best = candidate
        if best.faults == (0, 0):
            break
    if best is None:
        raise RuntimeError("There is always the way of the names as they are.")
    return best


def wanted(own: Mapping[str, Tensor]) -> set[str]:
    """Return what a file must hold; those of before PyTorch 0.4.1 counted no batches."""
    return {name for name in own if not name.endswith("num_batches_tracked")}


def is_computed(name: str) -> bool:
    """Tell whether a network computes such a weight itself, or has no use for it after pretraining."""
    return _NO_PART.search(name) is not None


def is_head(name: str) -> bool:
    """Tell whether a weight is of a classification head, by the names that timm and torchvision give it."""
    return _HEAD.search(name) is not None


def _ways(network: nn.Module, weights: Weights) -> Iterator[Fit]:
    own = network.state_dict()
    spelled = list(spellings(weights, own))
    for layout, named in spelled:
        inside, outside = without_prefix(named, best_prefix(named, own)[0])
        yield _fitted(own, inside, inside, outside, layout.title)
    for layout, named in spelled:
        for prefix in dict.fromkeys([best_prefix(named, own)[0], "", *common_prefixes(named)]):
            inside, outside = without_prefix(named, prefix)
            converted = converted_by_timm(network, inside)
            if converted is not None:
                yield _fitted(own, inside, converted, outside, layout.title)


def converted_by_timm(network: nn.Module, weights: Weights) -> dict[str, Tensor] | None:
    """Return weights as timm converts published ones to a network's architecture; None where it cannot.

    It is the function that ``timm.create_model(pretrained=True)`` applies: it knows the original names of
    some families, and resamples position embeddings, patches and the tables of windows.

    Args:
        network: Of timm.
        weights: Without what stood before their names.
    """
    module = sys.modules[type(network).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return None
    options = (
        {"adapt_layer_scale": True} if "adapt_layer_scale" in inspect.signature(convert).parameters else {}
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # one of them prints
            warnings.simplefilter("ignore")  # of its own use of torch
            converted = convert(_marked(weights), network, **options)
    except Exception:  # it is written for the files of its family, and fails in any way on those of others
        return None
    return {name: tensor for name, tensor in converted.items() if isinstance(tensor, Tensor)}


def _marked(weights: Weights) -> dict[str, Tensor]:
    """Return a copy with a head where Swin's names are today's: timm 1.0.15 takes those without for old."""
    is_swin = any(re.match(r"layers\.\d+\.downsample\.", name) for name in weights)
    is_old = "layers.0.downsample.reduction.weight" in weights
    mark = {"head.fc.weight": torch.zeros(0)} if is_swin and not is_old else {}
    return {**mark, **weights}


def _fitted(
    own: Mapping[str, Tensor], given: Weights, converted: Weights, outside: list[str], layout: str
) -> Fit:
    """Return how weights fit.

    Args:
        own: What the network holds.
        given: Before timm's conversion.
        converted: After it; the same where there was none.
        outside: Names beside them.
        layout: Whose names were translated.
    """
    weights = {name: converted[name] for name in own if name in converted}
    sources = _sources(given, weights)
    computed = {name for name, names in sources.items() if not names and name in given}
    kept = computed.union(*sources.values())
    resampled = {
        name: (tuple(given[name].shape), tuple(weights[name].shape))
        for name in weights
        if name in computed and given[name].shape != weights[name].shape
    }
    adapted = _adapt_first_layer(own, weights)
    needed = wanted(own)
    shapes = {
        name: (tuple(weights[name].shape), tuple(own[name].shape)) for name in sorted(needed & weights.keys())
    }
    unused = tuple(name for name in given if name not in kept)
    layers = {name.partition(".")[0] for name in own if "." in name}
    return Fit(
        weights=weights,
        unused=unused,
        outside=tuple(outside),
        missing=tuple(sorted(needed - weights.keys())),
        misfits={name: pair for name, pair in shapes.items() if pair[0] != pair[1]},
        inner=tuple(name for name in unused if _changes_network(name, given[name], layers)),
        layout=layout,
        resampled=resampled,
        is_norm_moved="fc_norm.weight" in weights and "fc_norm.weight" not in given,
        adapted=adapted,
    )


def _sources(given: Weights, weights: Weights) -> dict[str, set[str]]:
    """Return the names of those given that each weight is, whole or a part; none for a computed one."""
    names: dict[int, set[str]] = {}
    for name, tensor in given.items():
        if tensor.numel():
            names.setdefault(tensor.data_ptr(), set()).add(name)
    starts = sorted(names)
    ends = [max(_end(given[name]) for name in names[start]) for start in starts]
    sources = {}
    for name, tensor in weights.items():
        place = bisect.bisect_right(starts, tensor.data_ptr()) - 1
        is_within = place >= 0 and tensor.data_ptr() < ends[place]
        sources[name] = names[starts[place]] if is_within else set()
    return sources


def _end(tensor: Tensor) -> int:
    return tensor.data_ptr() + tensor.numel() * tensor.element_size()


def _changes_network(name: str, tensor: Tensor, layers: set[str]) -> bool:
    """Tell whether a weight without a place is of a part that the network has: a deeper one, or a layer more.

    One of zeros changes nothing: DINOv3's files hold biases that were never used.
    """
    if is_head(name) or is_computed(name) or not tensor.is_floating_point():
        return False
    is_inside = "." in name and name.partition(".")[0] in layers
    return (is_inside or _TOKEN.fullmatch(name) is not None) and bool(tensor.any())


def _adapt_first_layer(own: Mapping[str, Tensor], weights: dict[str, Tensor]) -> tuple[str, int] | None:
    """Convert the first convolution's weights in place where only the number of input channels differs.

    Returns:
        Its name and the number of channels in the file; None where nothing was done.
    """
    name = next((name for name, tensor in own.items() if tensor.ndim == 4), "")
    if name not in weights or weights[name].ndim != 4 or weights[name].shape == own[name].shape:
        return None
    (width, channels, *kernel), (file_width, file_channels, *file_kernel) = (
        own[name].shape,
        weights[name].shape,
    )
    if (width, kernel) != (file_width, file_kernel) or file_channels not in (1, 3):
        return None
    if file_channels == 3:
        weights[name] = adapt_input_conv(channels, weights[name])
    else:  # so that equal channels answer as the one did
        weights[name] = weights[name].repeat(1, channels, 1, 1) / channels
    return name, file_channels
