"""The two halves of Limpet in PyTorch, each computing exactly what llama.cpp computes from the export.

``Eye`` is a small ConvNeXt V2 (mtmd's projector type "yasa2"): 96 x 96 pixels, patches of 6, a stage on
16 x 16 cells, one on 8 x 8, then a two-layer projector to 64 token embeddings. ``Voice`` is a llama:
RMS norm, grouped-query attention with rotary positions (pairs of neighbours, as GGUF's llama wants
them), SwiGLU, tied embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from .scenes import LABEL_CLASSES

EYE_EPS = 1e-6
MEAN, STD = 0.5, 0.25
"""Every channel's: pixels (0..1) minus MEAN over STD is what the eye is fed."""

FEATURE_SCALE = 0.125
"""The eye's features are large; the projector learns on this much of them. The export folds it in."""
COUNTING_LAYERS = 2
"""After so many layers, training asks every position how many pictures came before it; the next layer is
where answers look things up."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Everything that fixes the shape of the weights."""

    vocabulary: int = 1024
    width: int = 192
    layers: int = 5
    heads: int = 6
    kv_heads: int = 3
    hidden: int = 512
    context: int = 8192
    rope_base: float = 500000.0
    rms_eps: float = 1e-5
    patch: int = 6
    eye_widths: tuple[int, int] = (64, 160)
    eye_blocks: tuple[int, int] = (2, 3)

    @property
    def head(self) -> int:
        return self.width // self.heads


class ConvBlock(nn.Module):
    """A ConvNeXt V2 block with global response normalisation, on (batch, height, width, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.ln = nn.LayerNorm(channels, EYE_EPS)
        self.pw1 = nn.Linear(channels, 4 * channels)
        self.grn_w = nn.Parameter(torch.zeros(4 * channels))
        self.grn_b = nn.Parameter(torch.zeros(4 * channels))
        self.pw2 = nn.Linear(4 * channels, channels)

    def forward(self, cells: Tensor) -> Tensor:
        hidden = self.dw(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        hidden = functional.gelu(self.pw1(self.ln(hidden)))
        energy = (hidden.float().pow(2).sum((1, 2), keepdim=True) + 1e-12).sqrt()
        response = (energy / energy.mean(-1, keepdim=True).clamp(min=1e-6)).to(hidden.dtype)
        hidden = hidden + (hidden * response) * self.grn_w + self.grn_b
        return cells + self.pw2(hidden)


class Eye(nn.Module):
    """Pixels to 64 features, and those to 64 token embeddings."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        first, second = sizes.eye_widths
        self.patch_embd = nn.Conv2d(3, first, sizes.patch, sizes.patch)
        self.patch_ln = nn.LayerNorm(first, EYE_EPS)
        self.stage0 = nn.ModuleList(ConvBlock(first) for _ in range(sizes.eye_blocks[0]))
        self.down_ln = nn.LayerNorm(first, EYE_EPS)
        self.down = nn.Conv2d(first, second, 2, 2)
        self.stage1 = nn.ModuleList(ConvBlock(second) for _ in range(sizes.eye_blocks[1]))
        self.positions = nn.Parameter(torch.randn(64, second) * 0.02)
        self.mm0 = nn.Linear(second, 2 * second)
        self.mm2 = nn.Linear(2 * second, sizes.width)

    def features(self, pixels: Tensor) -> Tensor:
        """(batch, 96, 96, 3) bytes -> (batch, 64, channels), row by row from the top left."""
        scaled = (pixels.float() / 255 - MEAN) / STD
        cells = self.patch_embd(scaled.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        cells = self.patch_ln(cells)
        for block in self.stage0:
            cells = block(cells)
        cells = self.down(self.down_ln(cells).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        for block in self.stage1:
            cells = block(cells)
        return cells.flatten(1, 2) + self.positions

    def project(self, features: Tensor) -> Tensor:
        """(batch, 64, channels) -> (batch, 64, width)."""
        projected: Tensor = self.mm2(functional.gelu(self.mm0(features * FEATURE_SCALE)))
        return projected

    def forward(self, pixels: Tensor) -> Tensor:
        return self.project(self.features(pixels))


class PatchHeads(nn.Module):
    """Training only: reads every patch label off the eye's features; not exported."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.read = nn.Linear(channels, sum(LABEL_CLASSES.values()))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """(batch, 64, channels) -> logits (batch, 64, classes) for each label in turn."""
        return self.read(self.norm(features)).split(list(LABEL_CLASSES.values()), -1)


class Layer(nn.Module):
    """One llama layer on (batch, time, width)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        width, kv_width = sizes.width, sizes.kv_heads * sizes.head
        self.attn_norm = nn.RMSNorm(width, sizes.rms_eps)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, kv_width, bias=False)
        self.v = nn.Linear(width, kv_width, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, sizes.rms_eps)
        self.gate = nn.Linear(width, sizes.hidden, bias=False)
        self.up = nn.Linear(width, sizes.hidden, bias=False)
        self.down = nn.Linear(sizes.hidden, width, bias=False)

    def forward(self, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        normed = self.attn_norm(states)
        query = rotate(self.heads(self.q(normed)), cos, sin)
        key = rotate(self.heads(self.k(normed)), cos, sin)
        groups = self.sizes.heads // self.sizes.kv_heads
        key, value = (part.repeat_interleave(groups, 1) for part in (key, self.heads(self.v(normed))))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.o(mixed.transpose(1, 2).flatten(2))
        normed = self.ffn_norm(states)
        fed: Tensor = states + self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return fed

    def heads(self, flat: Tensor) -> Tensor:
        """(batch, time, heads x head) -> (batch, heads, time, head)."""
        return flat.unflatten(2, (-1, self.sizes.head)).transpose(1, 2)


class Voice(nn.Module):
    """The language model."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embed = nn.Embedding(sizes.vocabulary, sizes.width)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.width, sizes.rms_eps)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                deep = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(weight, 0, 0.05 / (2 * sizes.layers) ** 0.5 if deep else 0.05)

    def states(self, embeddings: Tensor) -> list[Tensor]:
        """(batch, time, width) -> the same shape as it is after each layer, and last of all normed and
        ready for `logits`."""
        cos, sin = rotary(self.sizes, embeddings.shape[1])
        states = [embeddings]
        for layer in self.layers:
            states.append(layer(states[-1], cos, sin))
        return [*states[1:], self.norm(states[-1])]

    def logits(self, states: Tensor) -> Tensor:
        """(..., width) -> (..., vocabulary)."""
        return functional.linear(states, self.embed.weight)


def rotary(sizes: Sizes, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, head / 2)."""
    rates = sizes.rope_base ** (-torch.arange(0, sizes.head, 2).float() / sizes.head)
    angles = torch.outer(torch.arange(length).float(), rates)
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of neighbouring channels of (batch, heads, time, head)."""
    even, odd = heads.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return turned.flatten(-2).to(heads.dtype)
