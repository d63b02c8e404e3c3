"""Spans and pages from outside, proved harmless before llama.cpp could see a byte of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast_server.engine import spans as cells_of
from holdfast_server.engine.api import EngineRefused, KvPage, KvState, Span, TokenSpan
from holdfast_server.llama import finite, state
from holdfast_server.llama.state import Layout


def check(spans: Sequence[Span], saved: KvState, first_cell: int, *, layout: Layout, vocabulary: int) -> None:
    """As `Engine.check` says. Any thread."""
    for span in spans:
        if isinstance(span, TokenSpan):
            _check_tokens(span, vocabulary)
    if saved.logits is not None:
        check_logits(saved.logits, vocabulary)
    positions = cells_of.cell_positions(cells_of.decoded(spans))[first_cell:]
    for page in saved.pages:
        _check_page(page, positions[: page.cells], layout)
        positions = positions[page.cells :]


def check_logits(logits: NDArray[np.float32], vocabulary: int) -> None:
    """Raises EngineRefused unless it is a row of a model with this vocabulary."""
    if logits.shape != (vocabulary,) or not np.isfinite(logits).all():
        raise EngineRefused("the saved logits are not a row of this model")


def _check_tokens(span: TokenSpan, vocabulary: int) -> None:
    if span.cells and not 0 <= span.tokens.min() <= span.tokens.max() < vocabulary:
        raise EngineRefused("a token id is not in the vocabulary")


def _check_page(page: KvPage, positions: NDArray[np.int32], layout: Layout) -> None:
    try:
        rows = state.unpack_page(page.content, layout)
        if len(rows.positions) != page.cells or not np.array_equal(rows.positions, positions):
            raise EngineRefused("a page's positions are not those of the journal")
        finite.check(rows, layout)
    except state.StateRefused as error:
        raise EngineRefused(str(error)) from error
