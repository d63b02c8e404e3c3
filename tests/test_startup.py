"""Starting and stopping real processes: one clear line when it cannot, a drain when it should."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image, ImageDraw

from holdfast.v1 import session_pb2
from models import tiny
from models.tiny import TinyModel
from tests.calls import append, create, generate, image, pb, refusal, save, text
from tests.processes import HOLDFAST, ServerProcess, command, running


@pytest.fixture
def model(models_dir: Path) -> TinyModel:
    return tiny.make("llama", models_dir)


def fails_to_start(arguments: list[str]) -> str:
    """Runs it to its end; the one line it gave."""
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("holdfast: error: ")
    assert result.stdout == ""
    return lines[0]


async def test_without_a_model_limpet_is_served_and_sees(tmp_path: Path) -> None:
    """From an empty directory, as someone who has just installed the wheel would."""
    server = ServerProcess([str(HOLDFAST), "serve", "--port", "0"], folder=tmp_path)
    try:
        assert server.process.stdout is not None
        assert "Limpet" in server.process.stdout.readline()
        async with server.stub() as stub:
            for colour in ("red", "blue"):
                await create(stub, colour)
                await append(
                    stub, image(circle(colour)), text("What colour is the circle?"), session_id=colour
                )
                words, _, finish = await generate(stub, colour)
                assert colour in words.lower()
                assert finish.reason == pb.FINISH_REASON_END_OF_TURN
    finally:
        server.kill()
    assert (tmp_path / "holdfast-data").is_dir()


def circle(colour: str) -> bytes:
    """A picture that Limpet can read."""
    picture = Image.new("RGB", (240, 240), "white")
    ImageDraw.Draw(picture).ellipse((60, 60, 180, 180), fill=colour)
    return save(picture)


def test_a_model_that_is_not_there(model: TinyModel, tmp_path: Path) -> None:
    absent = TinyModel("x", tmp_path / "absent.gguf", None, "plain")
    assert "cannot read" in fails_to_start(command(absent, tmp_path / "d"))


def test_a_model_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("just text, and enough of it")
    line = fails_to_start(command(TinyModel("x", tmp_path / "text.gguf", None, "plain"), tmp_path / "d"))
    assert "not a GGUF file" in line


def test_a_model_that_is_cut_short(model: TinyModel, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.model.read_bytes()[:-100_000])
    assert "cannot load the model" in fails_to_start(
        command(TinyModel("x", broken, None, "plain"), tmp_path / "d")
    )


def test_a_projector_that_does_not_fit(model: TinyModel, tmp_path: Path) -> None:
    odd = TinyModel("x", model.model, model.model, "plain")
    assert "projector" in fails_to_start(command(odd, tmp_path / "d"))


def test_a_data_directory_that_is_a_file(model: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "data directory" in fails_to_start(command(model, tmp_path / "file"))


def test_a_data_directory_that_cannot_be_made(model: TinyModel) -> None:
    assert "data directory" in fails_to_start(command(model, Path("/proc/holdfast")))


def test_settings_out_of_bounds(model: TinyModel, tmp_path: Path) -> None:
    assert "-c/--ctx-size" in fails_to_start([*command(model, tmp_path), "-c", "1"])
    assert "-np/--parallel" in fails_to_start([*command(model, tmp_path), "-np", "0"])


def test_a_port_in_use(model: TinyModel, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "the port is in use" in fails_to_start(command(model, tmp_path, port=port))


async def test_a_data_directory_in_use(model: TinyModel, tmp_path: Path) -> None:
    async with running(model, tmp_path):
        line = await asyncio.to_thread(fails_to_start, command(model, tmp_path))
        assert "in use by another" in line


async def test_sigterm_lets_streams_finish_and_refuses_new_calls(model: TinyModel, tmp_path: Path) -> None:
    async with running(model, tmp_path) as server, server.stub() as stub:
        await create(stub)
        await append(stub, text("hello"))
        long = session_pb2.SamplingParams(temperature=0, max_tokens=1500)
        call = stub.Generate(pb.GenerateRequest(session_id="a", sampling=long))
        stream = aiter(call)
        await anext(stream)
        server.terminate()
        code, reason = grpc.StatusCode.OK, ""
        while code is grpc.StatusCode.OK:
            try:
                await create(stub, "")
            except grpc.aio.AioRpcError:
                code, reason, _ = await refusal(create(stub, "late"))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        events = [event async for event in stream]
        assert events[-1].finish.usage.generated_tokens > 0
        status, errors = await asyncio.to_thread(server.finish)
        assert status == 0, errors
        assert "Traceback" not in errors


async def test_sigterm_ends_streams_after_the_grace_period(model: TinyModel, tmp_path: Path) -> None:
    async with running(model, tmp_path, "--grace", "0", "-c", "8192") as server, server.stub() as stub:
        await create(stub)
        await append(stub, text("hello"))
        call = stub.Generate(
            pb.GenerateRequest(
                session_id="a", sampling=session_pb2.SamplingParams(temperature=0, max_tokens=8000)
            )
        )
        stream = aiter(call)
        await anext(stream)
        server.terminate()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            async for _ in stream:
                pass
        assert (await asyncio.to_thread(server.finish))[0] == 0
    # What had been streamed is in the journal.
    async with running(model, tmp_path) as server, server.stub() as stub:
        session = (await stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
        assert session.revision == 2


async def test_health_says_serving(model: TinyModel, tmp_path: Path) -> None:
    async with running(model, tmp_path) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", "holdfast.v1.SessionService"):
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
