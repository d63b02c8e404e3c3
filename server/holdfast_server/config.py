"""The server's settings: flag, else HOLDFAST_* environment variable, else default.

A flag is spelt as llama-server spells it where it is the same thing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from holdfast_server import embedded
from holdfast_server.errors import StartupError
from holdfast_server.sessions.autosave import Mode


def _flags(*names: str) -> dict[str, Any]:
    return {"flags": list(names)}


class Settings(BaseSettings):
    """Every setting. The description is its help text; `flags` are its spellings on the command line."""

    model_config = SettingsConfigDict(env_prefix="HOLDFAST_", extra="forbid")

    model: Annotated[
        Path | None,
        Field(
            description="The model, a GGUF file; without one, Limpet, the small one that comes along.",
            json_schema_extra=_flags("-m", "--model"),
        ),
    ] = None
    mmproj: Annotated[
        Path | None,
        Field(
            description="The projector that turns pictures into tokens, a GGUF file.",
            json_schema_extra=_flags("--mmproj"),
        ),
    ] = None
    ctx_size: Annotated[
        int,
        Field(
            ge=256,
            le=2**24,
            description="KV cells shared by the resident sessions, in tokens.",
            json_schema_extra=_flags("-c", "--ctx-size"),
        ),
    ] = 8192
    parallel: Annotated[
        int,
        Field(
            ge=1,
            le=255,
            description="Sessions that can be resident at once.",
            json_schema_extra=_flags("-np", "--parallel"),
        ),
    ] = 4
    gpu_layers: Annotated[
        int,
        Field(
            ge=-1,
            le=10_000,
            description="Layers to keep on the GPU; -1 for all.",
            json_schema_extra=_flags("-ngl", "--gpu-layers"),
        ),
    ] = -1
    threads: Annotated[
        int,
        Field(
            ge=0,
            le=1024,
            description="CPU threads to compute on; 0 for one a core.",
            json_schema_extra=_flags("-t", "--threads"),
        ),
    ] = 0
    batch_size: Annotated[
        int,
        Field(
            ge=32,
            le=2**16,
            description="Tokens computed in one step at most.",
            json_schema_extra=_flags("-b", "--batch-size"),
        ),
    ] = 512
    host: Annotated[str, Field(description="Address to listen on.", json_schema_extra=_flags("--host"))] = (
        "127.0.0.1"
    )
    port: Annotated[
        int,
        Field(
            ge=0,
            le=65535,
            description="Port to listen on; 0 for a free one.",
            json_schema_extra=_flags("--port"),
        ),
    ] = 50051
    data_dir: Annotated[
        Path,
        Field(
            description="Where journals, pages and media are kept; made if it is not there.",
            json_schema_extra=_flags("--data-dir"),
        ),
    ] = Path("holdfast-data")
    autosave: Annotated[
        Mode,
        Field(
            description="When sessions are saved by themselves: turn (each Generate), idle, evict or off.",
            json_schema_extra=_flags("--autosave"),
        ),
    ] = Mode.TURN
    autosave_keep: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="Automatic checkpoints to keep of a session.",
            json_schema_extra=_flags("--autosave-keep"),
        ),
    ] = 2
    store_bytes: Annotated[
        int | None,
        Field(
            ge=1,
            description="Bytes that pages and media may take in the data directory; no bound by default.",
            json_schema_extra=_flags("--store-bytes"),
        ),
    ] = None
    strict_restore: Annotated[
        bool,
        Field(
            description="Refuse a Restore that would have to recompute.",
            json_schema_extra=_flags("--strict-restore"),
        ),
    ] = False
    grace: Annotated[
        float,
        Field(
            ge=0,
            le=3600,
            description="Seconds that running streams have to finish after SIGTERM.",
            json_schema_extra=_flags("--grace"),
        ),
    ] = 30.0
    log_level: Annotated[
        str,
        Field(
            pattern="^(debug|info|warning|error)$",
            description="debug, info, warning or error.",
            json_schema_extra=_flags("--log-level"),
        ),
    ] = "info"

    @property
    def model_files(self) -> tuple[Path, Path | None]:
        """The model and its projector; Limpet and its own where no model was given."""
        if self.model is not None:
            return self.model, self.mmproj
        return embedded.MODEL, self.mmproj or embedded.PROJECTOR

    @property
    def compute_threads(self) -> int:
        """Threads to compute on, the default resolved."""
        return self.threads or os.cpu_count() or 1


def load(given: dict[str, Any]) -> Settings:
    """Settings from flags that were given, the environment and defaults. Raises StartupError."""
    try:
        return Settings(**given)
    except ValidationError as error:
        raise StartupError("; ".join(_explain(dict(item)) for item in error.errors())) from error


def flags(name: str) -> list[str]:
    """How a setting is spelt on the command line."""
    extra = Settings.model_fields[name].json_schema_extra
    return list(extra["flags"]) if isinstance(extra, dict) else []  # type: ignore[arg-type]


def _explain(item: dict[str, Any]) -> str:
    name = str(item["loc"][0])
    return f"{'/'.join(flags(name)) or name}: {item['msg']}"
