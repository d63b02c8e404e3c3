"""Stages two and three: projector and language model on dialogues, then with the eye set free as well."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from .looking import COPYING_HEAD, LOOKING_HEADS, aim_loss, copy_aims, picture_aims, thing_loss
from .network import COUNTING_LAYERS, Eye, PatchHeads, Sizes, Voice
from .pool import Pool
from .rows import IMAGE_SLOT, MOST_PICTURES, Encoder, Row, make_row, pack
from .scenes import COLOURS, KINDS, LABEL_CLASSES
from .tokenizer import IMAGE_START, PAD, Tokenizer
from .train_eye import label_loss

_WARM_UP = 200
_COUNT_SHARE = 0.2
_NAME_SHARE = 0.2
_AIM_SHARE = 0.2
_LABEL_SHARE = 0.3
_THING_SHARE = 2.0
_AVERAGED = 0.005


@dataclass(frozen=True, slots=True)
class Course:
    """How long to train, and on rows of which lengths: (share of the steps, row lengths to draw from)."""

    steps: int
    rate: float
    lengths: tuple[tuple[float, tuple[int, ...]], ...]
    tokens: int = 3072
    decay: float = 0.35
    seed: int = 3

    def length(self, step: int, rng: np.random.Generator) -> int:
        """Tokens a row for this step's batch."""
        ends = itertools.accumulate(share for share, _ in self.lengths)
        started = sum(end * self.steps <= step for end in ends)
        return int(rng.choice(self.lengths[min(started, len(self.lengths) - 1)][1]))

    def rate_at(self, step: int) -> float:
        """Learning rate: a short climb, a plateau, a straight descent over the last `decay` of the steps."""
        left = (self.steps - step) / (self.decay * self.steps)
        return self.rate * min(1.0, (step + 1) / _WARM_UP, max(left, 0.01))


def cache_features(eye: Eye, pool: Pool, count: int) -> Tensor:
    """What the eye sees in the first `count` pictures: (count, 64, channels), half precision."""
    parts = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, count, 500):
            pixels = torch.from_numpy(pool.pixels[start : min(start + 500, count)].copy())
            parts.append(eye.features(pixels).half())
    return torch.cat(parts)


def forward(
    voice: Voice, seen: Tensor, tokens: Tensor, answers: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Final states just before each answer token, and those tokens: (n, width) and (n,); and the states
    after each layer, (rows, time, width).

    `seen` (pictures, 64, width) fills the IMAGE_SLOTs of `tokens` (rows, time) in reading order.
    """
    embeddings = voice.embed(tokens.clamp(min=0))
    embeddings = embeddings.masked_scatter((tokens == IMAGE_SLOT)[..., None], seen.to(embeddings.dtype))
    states = voice.states(embeddings)
    wanted = answers[:, 1:]
    return states[-1][:, :-1][wanted], tokens[:, 1:][wanted], states


@dataclass(frozen=True, slots=True)
class _Batch:
    """`tokens` and `answers` (rows, time); `pictures`, numbers in the pool, and what the projector made of
    them, `seen` (pictures, 64, width), in reading order."""

    tokens: Tensor
    answers: Tensor
    pictures: list[int]
    seen: Tensor


class VoiceTrainer:
    """Trains on rows drawn afresh for every batch; writes its file every 200 steps and goes on from it."""

    def __init__(self, sizes: Sizes, tokenizer: Tokenizer, eye: Eye, out: Path) -> None:
        self.eye, self.voice, self.out = eye, Voice(sizes), out
        self._count = nn.Linear(sizes.width, MOST_PICTURES + 1)
        self._names = {
            column: torch.tensor([tokenizer.encode(f" {word}")[0] for word in words])
            for column, words in {"kind": KINDS, "colour": COLOURS, "size": ("small", "big")}.items()
        }
        self._labels, self._things = PatchHeads(sizes.width), PatchHeads(sizes.width)
        self._encoder, self._tokenizer = Encoder(tokenizer), tokenizer
        projector = [*eye.mm0.parameters(), *eye.mm2.parameters()]
        self._readers = nn.ModuleList((self._count, self._labels, self._things))
        self._weights = [*self.voice.parameters(), *projector, *self._readers.parameters()]
        matrices = [weight for weight in self._weights if weight.dim() > 1]
        vectors = [weight for weight in self._weights if weight.dim() == 1]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
        self._optimiser = torch.optim.AdamW(groups, 1e-3, betas=(0.9, 0.97))
        self.step = 0
        self._average = {name: weight.detach().clone() for name, weight in self._exported()}
        if out.exists():
            self._load()

    def train(self, course: Course, pool: Pool, features: Tensor, test: Pool, test_features: Tensor) -> None:
        """Up to `course.steps`; every 200 steps prints the share of exactly right answers by topic."""
        scenes, clock = pool.scenes[: len(features)], time.monotonic()
        labels = torch.from_numpy(pool.labels[: len(features)].copy())
        while self.step < course.steps:
            rng = np.random.default_rng([course.seed, self.step])
            length = course.length(self.step, rng)
            rows = [
                make_row(rng, scenes, self._encoder, length) for _ in range(max(1, course.tokens // length))
            ]
            loss = self._update(rows, features, labels, course.rate_at(self.step))
            self.step += 1
            if self.step % 50 == 0:
                spent = time.monotonic() - clock
                print(f"voice {self.step} length {length} loss {loss:.4f} seconds {spent:.0f}", flush=True)
            if self.step % 200 == 0 or self.step == course.steps:
                self._save()
                print("voice", self.step, self.score(test, test_features, 512), flush=True)

    def _update(self, rows: Sequence[Row], features: Tensor, labels: Tensor, rate: float) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            batch = self._pack(rows, features)
            states, truth, layers = forward(self.voice, batch.seen, batch.tokens, batch.answers)
            loss = functional.cross_entropy(self.voice.logits(states).float(), truth)
            loss = loss + _COUNT_SHARE * self._count_loss(batch.tokens, layers[COUNTING_LAYERS - 1])
            loss = loss + _NAME_SHARE * self._name_loss(batch.seen, labels[batch.pictures])
            loss = loss + _LABEL_SHARE * label_loss(self._labels(batch.seen), labels[batch.pictures])
            loss = loss + _AIM_SHARE * self._aim_loss(rows, layers, labels[batch.pictures])
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
        self._optimiser.step()
        self._average_in(_AVERAGED)
        return float(loss.item())

    def _pack(self, rows: Sequence[Row], features: Tensor) -> _Batch:
        tokens, answers, pictures = pack(rows, self._tokenizer.control(PAD))
        seen = self.eye.project(features[pictures].to(torch.bfloat16))
        return _Batch(torch.from_numpy(tokens), torch.from_numpy(answers), pictures, seen)

    def _count_loss(self, tokens: Tensor, early: Tensor) -> Tensor:
        """How well every position knows the number of pictures begun so far: what "the second" rests on."""
        begun = (tokens == self._tokenizer.control(IMAGE_START)).cumsum(1)
        return functional.cross_entropy(self._count(early).float().flatten(0, 1), begun.flatten())

    def _name_loss(self, seen: Tensor, labels: Tensor) -> Tensor:
        """How well each thing's embeddings read as the words for it: that is how the voice learns to look up
        a word among the cells, and to say what it found there. `labels` (pictures, 64, labels)."""
        total = torch.zeros(())
        for column, words in self._names.items():
            truth = labels[..., list(LABEL_CLASSES).index(column)].long() - 1
            here = (truth >= 0) & (truth < len(words))
            scores = functional.linear(seen[here], self.voice.embed.weight[words])
            total = total + functional.cross_entropy(scores.float(), truth[here])
        return total

    def _aim_loss(self, rows: Sequence[Row], layers: list[Tensor], labels: Tensor) -> Tensor:
        early, looked = layers[COUNTING_LAYERS - 1 : COUNTING_LAYERS + 1]
        time = early.shape[1]
        pictures, copies = picture_aims(rows, labels.numpy(), time), copy_aims(rows, time)
        total = aim_loss(self.voice, early, COPYING_HEAD, copies)
        for head in LOOKING_HEADS:
            total = total + aim_loss(self.voice, early, head, pictures) / len(LOOKING_HEADS)
        return total + _THING_SHARE * thing_loss(self._things, looked, pictures)

    def score(self, test: Pool, features: Tensor, length: int) -> dict[str, float]:
        """Share of answers with every token right (each given the true tokens before it), by topic."""
        rng = np.random.default_rng(99)
        right: dict[str, list[bool]] = defaultdict(list)
        for _ in range(10):
            rows = [make_row(rng, test.scenes[: len(features)], self._encoder, length) for _ in range(8)]
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                batch = self._pack(rows, features)
                states, truth, _ = forward(self.voice, batch.seen, batch.tokens, batch.answers)
                hits = (self.voice.logits(states).argmax(-1) == truth).tolist()
            for _, (start, end, topic) in ((row, span) for row in rows for span in row.spans):
                right[topic].append(all(hits[: end - start]))
                del hits[: end - start]
        return {topic: round(float(np.mean(values)), 3) for topic, values in sorted(right.items())}

    def _exported(self) -> list[tuple[str, Tensor]]:
        """Names and weights of both halves, as `export.load` expects them."""
        halves = (("eye", self.eye), ("voice", self.voice))
        return [
            (f"{half}.{name}", weight)
            for half, module in halves
            for name, weight in module.state_dict().items()
        ]

    def _average_in(self, share: float) -> None:
        """Moves the running average of the weights, which is what is exported, by that share."""
        with torch.no_grad():
            for name, weight in self._exported():
                self._average[name].lerp_(weight, share)

    def _save(self) -> None:
        saved = {
            "eye": self.eye.state_dict(), "voice": self.voice.state_dict(), "step": self.step,
            "optimiser": self._optimiser.state_dict(), "readers": self._readers.state_dict(),
            "average": self._average,
        }  # fmt: skip
        partial = self.out.with_suffix(".partial")
        torch.save(saved, partial)
        partial.rename(self.out)

    def _load(self) -> None:
        saved = torch.load(self.out)
        self.eye.load_state_dict(saved["eye"])
        self.voice.load_state_dict(saved["voice"])
        self._readers.load_state_dict(saved["readers"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self.step = saved["step"]
        self._average = saved["average"]
