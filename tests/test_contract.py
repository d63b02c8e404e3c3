"""The contract: generated code is current, and every reason in it has a code, and the other way round."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from holdfast_server.errors import Reason
from holdfast_server.rpc.status import CODES
from tests.test_architecture import ROOT

GENERATED = ROOT / "client" / "python" / "holdfast" / "v1"
PROTOS = ROOT / "protos" / "holdfast" / "v1"


@pytest.mark.skipif(not (ROOT / ".venv-proto").exists(), reason="make proto sets .venv-proto up")
def test_the_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    subprocess.run([ROOT / "tools" / "proto.sh", tmp_path], check=True, capture_output=True)
    fresh = {path.name: path.read_text() for path in (tmp_path / "holdfast" / "v1").iterdir()}
    kept = {path.name: path.read_text() for path in GENERATED.iterdir() if "_pb2" in path.name}
    assert fresh.keys() == kept.keys()
    assert all(fresh[name] == kept[name] for name in fresh), "run make proto"


def test_every_reason_has_a_code() -> None:
    assert CODES.keys() == set(Reason)


def test_every_reason_is_documented_and_nothing_else_is() -> None:
    comments = "\n".join(
        line for path in PROTOS.glob("*.proto") for line in path.read_text().splitlines() if "//" in line
    )
    for reason in Reason:
        assert reason in comments, f"{reason} is not in the contract"
    service = (PROTOS / "session_service.proto").read_text()
    for code, first in re.findall(r"\b([A-Z_]{5,})/([A-Z_]+)", service):
        assert first in Reason.__members__, f"{code}/{first} is not a reason of the server"
