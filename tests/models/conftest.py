"""The tiny models, made once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.tiny import make
from tests.models.runtime import Eyes, Runtime


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models are."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def runtime(request: pytest.FixtureRequest, folder: Path) -> Iterator[Runtime]:
    """The model named by the parameter, loaded."""
    with Runtime(make(request.param, folder).model) as loaded:
        yield loaded


@pytest.fixture
def eyes(request: pytest.FixtureRequest, folder: Path) -> Iterator[Eyes]:
    """The model named by the parameter, loaded with its projector."""
    made = make(request.param, folder)
    assert made.projector is not None
    with Runtime(made.model) as loaded, Eyes(loaded, made.projector) as opened:
        yield opened
