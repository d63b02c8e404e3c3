"""Training only: teaches two attention heads where answers come from.

Answers alone teach a small model very slowly to look something up. So three heads of the first layer after
COUNTING_LAYERS are shown: while an answer is said, two attend to the cells of the thing it is about, the
third to the told word it repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from torch import Tensor

from .network import COUNTING_LAYERS, Layer, PatchHeads, Voice, rotary, rotate
from .rows import IMAGE_SLOT, IMAGE_TOKENS, Row
from .scenes import IGNORE, LABEL_CLASSES

LOOKING_HEADS, COPYING_HEAD = (0, 4), 2
"""Query heads, each on a KV head of its own."""


_Found = tuple[int, int, npt.NDArray[np.bool_], npt.NDArray[np.int8]]


@dataclass(frozen=True, slots=True)
class Aims:
    """For one head, n positions to attend from, rows (n,) and times (n,), what to attend to, targets
    (n, time) booleans, and the labels of the thing to be seen there, things (n, labels)."""

    rows: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    targets: npt.NDArray[np.bool_]
    things: npt.NDArray[np.int8]


def picture_aims(rows: Sequence[Row], labels: npt.NDArray[np.int8], time: int) -> Aims:
    """From every position that predicts a token of an answer to the cells it is about.

    `labels` (pictures, 64, labels) of all the rows' pictures in reading order.
    """
    found: list[_Found] = []
    first = 0
    for number, row in enumerate(rows):
        slots = np.flatnonzero(np.array(row.tokens) == IMAGE_SLOT)
        for start, end, which, kind in row.looks:
            cells = labels[first + which, :, 0] == kind
            target = np.zeros(time, np.bool_)
            target[slots[which * IMAGE_TOKENS : (which + 1) * IMAGE_TOKENS]] = cells
            thing = labels[first + which, cells][0]
            found += [(number, at, target, thing) for at in range(start - 1, end - 1)]
        first += len(row.pictures)
    return _aims(found, time)


def copy_aims(rows: Sequence[Row], time: int) -> Aims:
    """From every position that predicts a token of a told word to where that token stands already."""
    targets: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}
    for number, row in enumerate(rows):
        for late, early in row.copies:
            targets.setdefault((number, late - 1), np.zeros(time, np.bool_))[early] = True
    nothing = np.zeros(0, np.int8)
    return _aims([(number, at, target, nothing) for (number, at), target in targets.items()], time)


def _aims(found: Sequence[_Found], time: int) -> Aims:
    if not found:
        none = np.zeros(0, np.int64)
        return Aims(none, none, np.zeros((0, time), np.bool_), np.zeros((0, 0), np.int8))
    rows, times, targets, things = zip(*found, strict=True)
    return Aims(np.array(rows, np.int64), np.array(times, np.int64), np.stack(targets), np.stack(things))


def thing_loss(read: PatchHeads, looked: Tensor, aims: Aims) -> Tensor:
    """How well the positions that looked at a thing know everything about it; `looked` (rows, time, width)
    are the states after the looking layer."""
    if not len(aims.rows):
        return torch.zeros(())
    here = looked[torch.from_numpy(aims.rows), torch.from_numpy(aims.times)]
    truths = torch.from_numpy(aims.things).long()
    total = torch.zeros(())
    for scores, truth in zip(read(here), truths.unbind(1), strict=True):
        losses = functional.cross_entropy(scores.float(), truth, ignore_index=IGNORE, reduction="sum")
        total = total + losses / (truth != IGNORE).sum().clamp(min=1)
    return total / len(LABEL_CLASSES)


def aim_loss(voice: Voice, early: Tensor, head: int, aims: Aims) -> Tensor:
    """Mean of -log of that head's attention on the targets; `early` (rows, time, width)."""
    if not len(aims.rows):
        return torch.zeros(())
    layer = voice.layers[COUNTING_LAYERS]
    assert isinstance(layer, Layer)
    query, key = _query_and_key(layer, early, head)
    scores = (query @ key.transpose(1, 2)).float() / voice.sizes.head**0.5
    scores = scores[torch.from_numpy(aims.rows), torch.from_numpy(aims.times)]
    later = torch.arange(early.shape[1])[None] > torch.from_numpy(aims.times)[:, None]
    scores = scores.masked_fill(later, -torch.inf)
    aimed = scores.masked_fill(~torch.from_numpy(aims.targets), -torch.inf)
    return (scores.logsumexp(1) - aimed.logsumexp(1)).mean()


def _query_and_key(layer: Layer, early: Tensor, head: int) -> tuple[Tensor, Tensor]:
    """Each (rows, time, head size), turned to its position."""
    cos, sin = rotary(layer.sizes, early.shape[1])
    normed = layer.attn_norm(early)
    query = rotate(layer.heads(layer.q(normed))[:, head], cos, sin)
    key = rotate(
        layer.heads(layer.k(normed))[:, head // (layer.sizes.heads // layer.sizes.kv_heads)], cos, sin
    )
    return query, key
