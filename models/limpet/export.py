"""Trained weights as the two files that llama.cpp reads: a llama GGUF and a "yasa2" mmproj GGUF.

Matrices are stored in half precision, everything one-dimensional in full. Q and K need no permutation:
the network already rotates neighbouring pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch

from .network import EYE_EPS, FEATURE_SCALE, MEAN, STD, Eye, Sizes, Voice
from .tokenizer import BEGIN, CONTROLS, END, PAD, PRE_TOKENIZER, Tokenizer

HERE = Path(__file__).parent
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}"
    "{{- message['content'] -}}"
    "{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{{- part['text'] if part['type'] == 'text' else '<__media__>' -}}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def export_voice(voice: Voice, tokenizer: Tokenizer, path: Path) -> None:
    """The language model, its vocabulary and its chat template."""
    sizes, writer = voice.sizes, gguf.GGUFWriter(path, "llama")
    _describe(writer, "Limpet")
    writer.add_context_length(sizes.context)
    writer.add_embedding_length(sizes.width)
    writer.add_block_count(sizes.layers)
    writer.add_feed_forward_length(sizes.hidden)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_layer_norm_rms_eps(sizes.rms_eps)
    writer.add_rope_dimension_count(sizes.head)
    writer.add_rope_freq_base(sizes.rope_base)
    writer.add_vocab_size(sizes.vocabulary)
    _add_tokenizer(writer, tokenizer)
    _add(writer, "token_embd.weight", voice.embed.weight)
    _add(writer, "output_norm.weight", voice.norm.weight)
    names = {
        "attn_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
        "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
    }  # fmt: skip
    for number, layer in enumerate(voice.layers):
        for ours, theirs in names.items():
            _add(writer, f"blk.{number}.{theirs}.weight", getattr(layer, ours).weight)
    _finish(writer)


def export_eye(eye: Eye, sizes: Sizes, path: Path) -> None:
    """The vision encoder and projector."""
    channels, writer = sizes.eye_widths[1], gguf.GGUFWriter(path, "clip")
    _describe(writer, "Limpet's eye")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "yasa2")
    for key, value in {
        "image_size": sizes.patch * 16, "patch_size": sizes.patch, "embedding_length": channels,
        "feed_forward_length": 4 * channels, "block_count": 0, "projection_dim": sizes.width,
        "attention.head_count": 1,
    }.items():  # fmt: skip
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", EYE_EPS)
    writer.add_array("clip.vision.image_mean", [MEAN] * 3)
    writer.add_array("clip.vision.image_std", [STD] * 3)
    _add_pair(writer, "v.patch_embd", eye.patch_embd)
    _add_pair(writer, "v.patch_ln", eye.patch_ln)
    for number, stage in enumerate((eye.stage0, eye.stage1)):
        if number == 1:
            _add_pair(writer, "v.stage.1.down.ln", eye.down_ln)
            _add_pair(writer, "v.stage.1.down.conv", eye.down)
        for block, module in enumerate(stage):
            _add_block(writer, f"v.stage.{number}.blk.{block}", module)
    _add(writer, "v.vision_pos_embed", eye.positions, full=True)
    _add(writer, "mm.0.weight", eye.mm0.weight * FEATURE_SCALE)
    _add(writer, "mm.0.bias", eye.mm0.bias)
    _add_pair(writer, "mm.2", eye.mm2)
    _finish(writer)


def _describe(writer: gguf.GGUFWriter, name: str) -> None:
    writer.add_name(name)
    writer.add_description("A very small vision-language model of coloured shapes, numbers and told facts")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    kinds = [
        gguf.TokenType.CONTROL if token in CONTROLS
        else gguf.TokenType.UNUSED if token.startswith("<|unused")
        else gguf.TokenType.NORMAL
        for token in tokenizer.tokens
    ]  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.control(BEGIN))
    writer.add_eos_token_id(tokenizer.control(END))
    writer.add_pad_token_id(tokenizer.control(PAD))
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)


def _add_block(writer: gguf.GGUFWriter, name: str, block: Any) -> None:
    """One ConvBlock; typed Any because modules come out of a ModuleList as plain nn.Module."""
    for part in ("dw", "ln", "pw1", "pw2"):
        _add_pair(writer, f"{name}.{part}", getattr(block, part))
    _add(writer, f"{name}.grn.weight", block.grn_w)
    _add(writer, f"{name}.grn.bias", block.grn_b)


def _add_pair(writer: gguf.GGUFWriter, name: str, module: Any) -> None:
    """Weight and bias of a linear, convolution or norm module."""
    _add(writer, f"{name}.weight", module.weight)
    _add(writer, f"{name}.bias", module.bias)


def _add(writer: gguf.GGUFWriter, name: str, tensor: torch.Tensor, full: bool = False) -> None:
    """Vectors, and whatever is to be `full`, as 32-bit floats; the rest as 16-bit."""
    values: npt.NDArray[Any] = tensor.detach().float().numpy()
    writer.add_tensor(name, values if full or values.ndim == 1 else values.astype(np.float16))


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(checkpoint: Path, sizes: Sizes) -> tuple[Eye, Voice]:
    """Both halves from a checkpoint of the voice stage: the running average of its weights."""
    average: dict[str, torch.Tensor] = torch.load(checkpoint, map_location="cpu")["average"]
    eye, voice = Eye(sizes), Voice(sizes)
    for half, module in (("eye", eye), ("voice", voice)):
        start = f"{half}."
        own = {name.removeprefix(start): weight for name, weight in average.items() if name.startswith(start)}
        module.load_state_dict(own)
    return eye.eval(), voice.eval()


def export(checkpoint: Path, out: Path) -> None:
    """Writes limpet.gguf and limpet-mmproj.gguf into the folder `out`."""
    sizes = Sizes()
    eye, voice = load(checkpoint, sizes)
    out.mkdir(parents=True, exist_ok=True)
    export_voice(voice, Tokenizer.load(HERE / "tokenizer.json"), out / "limpet.gguf")
    export_eye(eye, sizes, out / "limpet-mmproj.gguf")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.limpet.export", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="voice.pt of the training")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    arguments = parser.parse_args()
    export(arguments.checkpoint, arguments.out)


if __name__ == "__main__":
    main()
