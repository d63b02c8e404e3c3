"""When parts of the server fail: calls end with an answer, and what can go on goes on."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from holdfast.v1 import session_pb2
from holdfast_server.llama.context import Context, ContextFull, DecodeFailed
from holdfast_server.llama.media import MediaRefused, Projector
from tests.calls import RAW, append, checkpoint, create, generate, image, pb, png, raw, refusal, text
from tests.conftest import RunningServer

INTERNAL = (grpc.StatusCode.INTERNAL, "INTERNAL")


def failing_once(error: Exception, original: object) -> object:
    """A method that raises the first time it is called."""
    calls = 0

    def method(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise error
        return original(*args, **options)  # type: ignore[operator]

    return method


@pytest.mark.parametrize("error", [ContextFull(), DecodeFailed("llama_decode returned -3")])
async def test_a_failed_decode_costs_one_call_and_no_data(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for name in ("a", "twin"):
        await create(server.stub, name, chat_format=RAW)
        await append(server.stub, raw("the sea"), session_id=name)
    _, twin, _ = await generate(server.stub, "twin")
    monkeypatch.setattr(Context, "decode", failing_once(error, Context.decode))
    assert (await refusal(generate(server.stub)))[:2] == INTERNAL
    _, tokens, finish = await generate(server.stub)
    assert tokens == twin
    assert finish.session.revision == 2


async def test_a_picture_that_cannot_be_encoded_is_tried_again(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Projector, "encode", failing_once(MediaRefused("broken"), Projector.encode))
    await create(server.stub)
    await append(server.stub, image(png()), text("what is it?"))
    assert (await refusal(generate(server.stub)))[:2] == INTERNAL
    _, _, finish = await generate(server.stub)
    assert finish.usage.media_encoded == 1


async def test_a_dead_engine_answers_every_call_and_ends_the_server(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(server.stub)
    await append(server.stub, text("hello"))
    long = session_pb2.SamplingParams(temperature=0, max_tokens=1500)
    call = server.stub.Generate(pb.GenerateRequest(session_id="a", sampling=long))
    await call.read()

    def die(self: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(Context, "decode", die)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        while await call.read():
            pass
    assert ended.value.code() is grpc.StatusCode.INTERNAL
    assert (await refusal(checkpoint(server.stub)))[:2] == INTERNAL
    assert await server.server.wait(asyncio.Event()) is False
    # The journal still answers.
    session = (await server.stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
    assert session.token_count > 0


async def test_internal_errors_say_nothing_but_an_id(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await create(server.stub)

    async def fail(*args: object, **options: object) -> None:
        raise ValueError("secret /etc/passwd at 0xdeadbeef")

    monkeypatch.setattr(type(server.server.sessions), "get", fail)
    code, why, error = await refusal(server.stub.GetSession(pb.GetSessionRequest(session_id="a")))
    assert (code, why) == INTERNAL
    assert "secret" not in str(error.details())
    error_id = (error.details() or "").split()[-1]
    assert any(error_id in record.getMessage() for record in caplog.records)
