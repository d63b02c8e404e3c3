"""``python -m models.limpet.train``: draws, trains in two stages, exports. Two hours or more on 2 free cores.

    pool    draw the pictures once
    eye     the vision encoder alone, on what is in each of its cells
    voice   projector and language model on dialogues, the eye's features computed once and kept

Each stage goes on from its file in the work folder if it was interrupted. Numbers are seeded throughout;
another count of threads may still round differently.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from .export import HERE, export
from .network import Eye, Sizes
from .pool import Pool, load_pool, make_pool
from .rows import sentences
from .tokenizer import Tokenizer
from .train_eye import train_eye
from .train_voice import Course, VoiceTrainer, cache_features

PICTURES, VOICE_PICTURES, TEST_PICTURES = 80_000, 32_000, 2_000
EYE_STEPS, VOICE_STEPS = 3_500, 8_000
COURSE = Course(
    VOICE_STEPS, 1.5e-3, ((0.5, (320,)), (0.25, (320, 512, 1024)), (0.25, (320, 512, 1024, 1536, 2048)))
)
"""Drills first, then chats that grow."""


def pools(work: Path) -> tuple[Pool, Pool]:
    """Pictures to train on and to test on, drawn if they are not there yet."""
    for name, count, seed in (("pool", PICTURES, 11), ("pool-test", TEST_PICTURES, 12)):
        if not (work / name / "scenes.pickle").exists():
            make_pool(work / name, count, seed)
    return load_pool(work / "pool"), load_pool(work / "pool-test")


def load_tokenizer(pool: Pool) -> Tokenizer:
    """The committed tokenizer; learned from the dialogues' sentences if there is none."""
    path = HERE / "tokenizer.json"
    if not path.exists():
        Tokenizer.learn(sentences(5, pool.scenes, 12_000), Sizes().vocabulary).save(path)
    return Tokenizer.load(path)


def train_voice(work: Path, pool: Pool, test: Pool, tokenizer: Tokenizer, course: Course) -> None:
    """Stage two, from the eye that stage one left."""
    torch.manual_seed(course.seed)
    eye = Eye(Sizes())
    eye.load_state_dict(torch.load(work / "eye.pt")["eye"])
    torch.nn.init.normal_(eye.mm2.weight, 0, 0.05)
    features = cache_features(eye, pool, min(VOICE_PICTURES, len(pool)))
    test_features = cache_features(eye, test, len(test))
    VoiceTrainer(Sizes(), tokenizer, eye, work / "voice.pt").train(
        course, pool, features, test, test_features
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.limpet.train", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("limpet-work"), help="folder for pictures and checkpoints"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=VOICE_STEPS, help="of the voice stage")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work, sizes = arguments.work, Sizes()
    pool, test = pools(work)
    tokenizer = load_tokenizer(pool)
    train_eye(sizes, pool, test, work / "eye.pt", EYE_STEPS, batch=64, rate=2e-3, seed=1)
    course = dataclasses.replace(COURSE, steps=arguments.steps)
    train_voice(work, pool, test, tokenizer, course)
    export(work / "voice.pt", work)


if __name__ == "__main__":
    main()
