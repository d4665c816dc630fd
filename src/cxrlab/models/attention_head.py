"""A head in which each label looks at the places of an image by itself."""

import math

import torch
from torch import Tensor, nn

_MOST_HEADS = 8
_NUM_FREQUENCIES = 4  # the finest wave has two places to the half of a 16x16 grid's side


class AttentionHead(nn.Module):
    """One logit a label, from what the label's own query finds among the places of a grid of features.

    A mean over all places lets a small finding drown, and mixes what different findings need. Here each label
    has a learnt query, which is compared with a key of every place (several heads, scaled dot products); the
    mean of the values by these weights is what the label is told from, by weights of its own. Where a place
    lies counts for its key and not for its value, as in Query2Label; it is given by waves over the image, so
    that other image sizes need no other weights. At first no label cares about it.

    A query that is learnt needs no projection, and a value that is read by a linear layer none behind it.

    Args:
        num_features: F.
        num_labels: L.
        hidden: Width of a hidden layer with ReLU, the same for all labels, before the logits; None for none.
        dropout: Probability of dropping a feature before the logits.
        feature_dropout: The same of a label's features before the hidden layer.

    Attributes:
        num_heads: The largest number up to 8 that divides F.
        attention: Passes on the weights of the places, shape ``(B, heads, L, h, w)``; they sum to 1 over the
            grid.

    References:
        Liu et al., Query2Label, arXiv:2107.10834; Ridnik et al., ML-Decoder, WACV 2023.
    """

    def __init__(
        self,
        num_features: int,
        num_labels: int,
        *,
        hidden: int | None = None,
        dropout: float = 0.0,
        feature_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = next(number for number in range(_MOST_HEADS, 0, -1) if num_features % number == 0)
        self.norm = nn.LayerNorm(num_features)
        self.queries = nn.Parameter(torch.empty(num_labels, num_features))
        self.keys = nn.Linear(num_features, num_features)
        self.places = nn.Linear(4 * _NUM_FREQUENCIES, num_features, bias=False)
        self.values = nn.Linear(num_features, num_features)
        self.attention = _SpatialSoftmax()
        layers: list[nn.Module] = [nn.Dropout(feature_dropout)]
        if hidden is not None:
            layers += [nn.Linear(num_features, hidden), nn.ReLU()]
        self.logits = nn.Sequential(
            *layers,
            nn.Dropout(dropout),
            _LabelLinear(num_features if hidden is None else hidden, num_labels),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the queries, and let places be alike; the layers inside reset their own."""
        nn.init.normal_(self.queries)
        nn.init.zeros_(self.places.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(B, L)`` of features ``(B, F, h, w)``."""
        height, width = features.shape[-2:]
        tokens = self.norm(features.flatten(2).transpose(1, 2))  # (B, P, F)
        keys = self.keys(tokens) + self.places(_waves(height, width).to(tokens))
        keys, values, queries = (
            torch.unflatten(x, -1, (self.num_heads, -1)) for x in (keys, self.values(tokens), self.queries)
        )
        scores = torch.einsum("lnd,bpnd->bnlp", queries, keys) / math.sqrt(keys.shape[-1])
        weights = self.attention(torch.unflatten(scores, -1, (height, width))).flatten(-2)
        pooled = torch.einsum("bnlp,bpnd->blnd", weights, values).flatten(-2)  # (B, L, F)
        logits: Tensor = self.logits(pooled)
        return logits


class _SpatialSoftmax(nn.Module):
    """A softmax over the last two dimensions."""

    def forward(self, scores: Tensor) -> Tensor:
        return scores.flatten(-2).softmax(dim=-1).view_as(scores)


class _LabelLinear(nn.Module):
    """One logit of each label from features of its own: ``(B, L, F)`` in, ``(B, L)`` out."""

    def __init__(self, num_features: int, num_labels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_labels, num_features))
        self.bias = nn.Parameter(torch.empty(num_labels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.weight.shape[1])  # as nn.Linear
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, features: Tensor) -> Tensor:
        return (features * self.weight).sum(dim=-1) + self.bias


def _waves(height: int, width: int) -> Tensor:
    """Return where each cell of a grid lies, as sines and cosines of its centre, ``(height * width, 16)``.

    The lowest wave has half a period over the image, and so tells top from bottom and left from right.
    """
    frequencies = math.pi * 2.0 ** torch.arange(_NUM_FREQUENCIES)
    angles = [(torch.arange(side)[:, None] + 0.5) / side * frequencies for side in (height, width)]
    rows, columns = (torch.cat([angle.sin(), angle.cos()], dim=1) for angle in angles)
    of_cells = (rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1))
    return torch.cat(of_cells, dim=-1).flatten(0, 1)
