"""ForkSession: branches that copy nothing and go on as the trunk would have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from holdfast.v1 import session_pb2
from tests.calls import (
    GREEDY,
    RAW,
    append,
    checkpoint,
    create,
    field,
    generate,
    image,
    pb,
    png,
    raw,
    refusal,
    text,
)
from tests.conftest import RunningServer, StartServer


async def fork(stub: object, new: str, session_id: str = "a", **fields: object) -> pb.ForkSessionResponse:
    """Forks a session."""
    request = pb.ForkSessionRequest(session_id=session_id, new_session_id=new, **fields)  # type: ignore[arg-type]
    reply: pb.ForkSessionResponse = await stub.ForkSession(request)  # type: ignore[attr-defined]
    return reply


async def trunk(stub: object) -> None:
    """A chat with a picture, waiting to be answered."""
    await create(stub)
    await append(stub, text("what is in this picture? " * 20), image(png()))
    await generate(stub)
    await append(stub, text("and what else?"))


async def test_a_branch_goes_on_as_its_trunk_and_prefills_nothing_of_it(server: RunningServer) -> None:
    await trunk(server.stub)
    trunk_tokens = (await checkpoint(server.stub)).checkpoint.token_count
    reply = await fork(server.stub, "b")
    assert reply.usage.prompt_tokens == trunk_tokens
    _, tokens, finish = await generate(server.stub, "b")
    usage = finish.usage
    assert (usage.media_encoded, usage.restored_tokens) == (0, 0)
    assert usage.prefilled_tokens == usage.prompt_tokens - trunk_tokens
    assert (await generate(server.stub))[1] == tokens


async def test_eight_branches_fit_where_two_copies_would_not(start_server: StartServer) -> None:
    server = await start_server(ctx_size=1024, parallel=9)
    await create(server.stub, chat_format=RAW)
    await append(server.stub, raw("trunk " * 120))
    await generate(server.stub)
    names = [f"b{number}" for number in range(8)]
    for name in names:
        await fork(server.stub, name)
    for name in names:
        _, _, finish = await generate(
            server.stub, name, session_pb2.SamplingParams(temperature=0, max_tokens=4)
        )
        assert (finish.usage.prefilled_tokens, finish.usage.restored_tokens) == (0, 0)
    listed = await server.stub.ListSessions(pb.ListSessionsRequest())
    assert {s.residency for s in listed.sessions} == {session_pb2.RESIDENCY_RESIDENT}


async def test_a_hundred_branches_write_no_page(server: RunningServer) -> None:
    await create(server.stub, chat_format=RAW)
    await append(server.stub, raw("x" * 1500))
    await checkpoint(server.stub)
    blobs = server.data_dir / "blobs"

    def size() -> int:
        return sum(path.stat().st_size for path in blobs.rglob("*") if path.is_file())

    before = size()
    for number in range(100):
        await fork(server.stub, f"b{number}")
    for number in (0, 50, 99):
        taken = await checkpoint(server.stub, f"b{number}", f"c{number}")
        assert (taken.usage.pages_written, taken.usage.prefilled_tokens) == (0, 0)
    assert size() == before


async def test_a_branch_from_the_past(server: RunningServer) -> None:
    await trunk(server.stub)
    await append(server.stub, text("forget this"))
    past = await fork(server.stub, "past", revision=1)
    assert past.session.revision == 1
    first = await fork(server.stub, "first", revision=0)
    assert (first.session.revision, first.session.token_count) == (0, 0)
    await create(server.stub, "twin")
    await append(server.stub, text("what is in this picture? " * 20), image(png()), session_id="twin")
    assert (await generate(server.stub, "past"))[1] == (await generate(server.stub, "twin"))[1]


async def test_branches_grow_apart(server: RunningServer) -> None:
    await trunk(server.stub)
    await fork(server.stub, "b")
    await append(server.stub, text("one way"), session_id="a")
    await append(server.stub, text("the other"), session_id="b")
    answers = await asyncio.gather(generate(server.stub, "a"), generate(server.stub, "b"))
    assert answers[0][1] != answers[1][1]
    await server.stub.DeleteSession(pb.DeleteSessionRequest(session_id="a"))
    assert len((await generate(server.stub, "b"))[1]) == 12


async def test_a_branch_of_a_running_generation_begins_where_it_began(server: RunningServer) -> None:
    await trunk(server.stub)
    before = (await server.stub.GetSession(pb.GetSessionRequest(session_id="a"))).session
    long = session_pb2.SamplingParams(temperature=0, max_tokens=500)
    call = server.stub.Generate(pb.GenerateRequest(session_id="a", sampling=long))
    await call.read()
    reply = await fork(server.stub, "b")
    assert reply.session.revision == before.revision
    assert len((await generate(server.stub, "b"))[1]) == 12
    call.cancel()


async def test_a_branch_after_a_restart_comes_from_the_trunks_pages(
    start_server: StartServer, tmp_path: Path
) -> None:
    before = await start_server(data_dir=tmp_path / "d")
    await trunk(before.stub)
    await checkpoint(before.stub)
    await before.server.drain(0)
    after = await start_server(data_dir=tmp_path / "d")
    await fork(after.stub, "b")
    _, tokens, finish = await generate(after.stub, "b")
    assert finish.usage.restored_tokens > 0
    assert finish.usage.prefilled_tokens < 20
    assert (await generate(after.stub, "a"))[1] == tokens


async def test_branches_can_have_seeds_of_their_own(server: RunningServer) -> None:
    hot = session_pb2.SamplingParams(temperature=1.5, max_tokens=16, seed=1)
    await create(server.stub, chat_format=RAW, sampling=hot)
    await append(server.stub, raw("roll"))
    own = session_pb2.SamplingParams(seed=2)
    assert (await fork(server.stub, "b", sampling=own)).session.sampling.seed == 2
    await fork(server.stub, "c")
    none = session_pb2.SamplingParams()
    a, b, c = [(await generate(server.stub, name, none))[1] for name in ("a", "b", "c")]
    assert a == c != b


@pytest.mark.parametrize("revision", [-1, 4, 2**31 - 1])
async def test_revisions_that_never_were(server: RunningServer, revision: int) -> None:
    await trunk(server.stub)
    code, why, error = await refusal(fork(server.stub, "b", revision=revision))
    assert (code, why, field(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "revision")


async def test_names_that_are_taken_or_unknown(server: RunningServer) -> None:
    await trunk(server.stub)
    assert (await refusal(fork(server.stub, "a")))[1] == "SESSION_EXISTS"
    assert (await refusal(fork(server.stub, "b", "nope")))[1] == "SESSION_NOT_FOUND"
    assert (await refusal(fork(server.stub, "../b")))[1] == "INVALID_FIELD"
    assert len((await generate(server.stub, sampling=GREEDY))[1]) == 12
