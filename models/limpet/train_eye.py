"""Stage one: the eye alone, on what is in each of its 64 cells. No text takes part."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from .network import Eye, PatchHeads, Sizes
from .pool import Pool
from .scenes import IGNORE, KINDS, LABEL_CLASSES

_NUMBER = len(KINDS) + 1


def label_loss(logits: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Mean over labels of the cross-entropy, where things and emptiness, and print and the rest, weigh alike.

    `logits` as PatchHeads gives them; `labels` (batch, 64, labels), IGNORE where there is none.
    """
    kinds = labels[..., 0]
    total = torch.zeros(())
    for column, (name, scores) in enumerate(zip(LABEL_CLASSES, logits, strict=True)):
        truth = labels[..., column].long()
        losses = functional.cross_entropy(
            scores.float().flatten(0, 1), truth.flatten(), ignore_index=IGNORE, reduction="none"
        ).view_as(truth)
        if name in ("tens", "ones"):
            total = total + 2 * (_mean(losses, kinds == _NUMBER) + _mean(losses, kinds != _NUMBER))
        elif name in ("kind", "colour", "size"):
            total = total + 0.5 * (2 * _mean(losses, kinds > 0) + _mean(losses, kinds == 0))
        else:
            total = total + 0.5 * _mean(losses, truth != IGNORE)
    return total / len(LABEL_CLASSES)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)


def label_accuracy(eye: Eye, heads: PatchHeads, pool: Pool, count: int) -> dict[str, float]:
    """Share of cells right, by label, over the first `count` pictures: cells with a thing for its own
    labels, cells of print for the digits."""
    right: dict[str, list[float]] = {name: [] for name in LABEL_CLASSES}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, count, 250):
            labels = torch.from_numpy(pool.labels[start : start + 250].copy())
            logits = heads(eye.features(torch.from_numpy(pool.pixels[start : start + 250].copy())))
            for column, (name, scores) in enumerate(zip(LABEL_CLASSES, logits, strict=True)):
                truth = labels[..., column]
                here = (labels[..., 0] == _NUMBER) if name in ("tens", "ones") else truth > IGNORE
                if name in ("kind", "colour", "size"):
                    here = truth > 0
                right[name].append(float((scores.argmax(-1) == truth)[here].float().mean()))
    return {name: float(np.mean(values)) for name, values in right.items()}


def train_eye(
    sizes: Sizes, pool: Pool, test: Pool, out: Path, steps: int, batch: int, rate: float, seed: int
) -> None:
    """Writes `out` (a torch file with "eye" and "heads") every 250 steps; goes on from it where it exists."""
    torch.manual_seed(seed)
    eye, heads = Eye(sizes), PatchHeads(sizes.eye_widths[1])
    weights = [*eye.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(weights, rate, betas=(0.9, 0.98), weight_decay=0.02)
    start = _resume(out, eye, heads, optimiser)
    clock = time.monotonic()
    for step in range(start, steps):
        chosen = np.sort(np.random.default_rng([seed, step]).choice(len(pool), batch, replace=False))
        pixels, labels = torch.from_numpy(pool.pixels[chosen]), torch.from_numpy(pool.labels[chosen])
        with torch.autocast("cpu", torch.bfloat16):
            loss = label_loss(heads(eye.features(pixels)), labels)
        for group in optimiser.param_groups:
            group["lr"] = (
                rate * min(1.0, (step + 1) / 400) * (0.505 + 0.495 * math.cos(math.pi * step / steps))
            )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        if step % 50 == 49:
            print(f"eye {step + 1} loss {loss.item():.3f} seconds {time.monotonic() - clock:.0f}", flush=True)
        if step % 250 == 249 or step + 1 == steps:
            scores = label_accuracy(eye, heads, test, 500)
            print("eye", step + 1, {name: round(score, 3) for name, score in scores.items()}, flush=True)
            saved = {
                "eye": eye.state_dict(),
                "heads": heads.state_dict(),
                "optimiser": optimiser.state_dict(),
            }
            torch.save({**saved, "step": step + 1}, out)


def _resume(out: Path, eye: Eye, heads: PatchHeads, optimiser: torch.optim.Optimizer) -> int:
    """Loads what `out` holds, if it exists; the number of steps done."""
    if not out.exists():
        return 0
    saved = torch.load(out)
    eye.load_state_dict(saved["eye"])
    heads.load_state_dict(saved["heads"])
    optimiser.load_state_dict(saved["optimiser"])
    return int(saved["step"])
