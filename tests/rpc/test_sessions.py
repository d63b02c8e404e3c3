"""Sessions over gRPC: created, listed, appended to, generated from, deleted."""

from __future__ import annotations

import grpc

from holdfast.v1 import chunk_pb2, session_pb2
from tests.calls import GREEDY, RAW, append, checkpoint, create, generate, image, pb, png, raw, refusal, text
from tests.conftest import RunningServer, StartServer


async def test_a_session_is_what_it_was_created_as(server: RunningServer) -> None:
    created = await create(
        server.stub,
        "kelp",
        labels={"app": "demo"},
        sampling=session_pb2.SamplingParams(temperature=0.5, seed=7, stop=["x"]),
    )
    read = (await server.stub.GetSession(pb.GetSessionRequest(session_id="kelp"))).session
    assert read == created
    assert (read.revision, read.token_count, dict(read.labels)) == (0, 0, {"app": "demo"})
    assert (read.sampling.seed, list(read.sampling.stop)) == (7, ["x"])
    assert read.chat_format == session_pb2.CHAT_FORMAT_TEMPLATE


async def test_the_server_chooses_an_id_and_a_seed(server: RunningServer) -> None:
    first, second = await create(server.stub, ""), await create(server.stub, "")
    assert first.session_id != second.session_id
    assert first.sampling.HasField("seed")


async def test_sessions_are_listed_in_pages_without_gaps(server: RunningServer) -> None:
    for number in range(7):
        await create(server.stub, f"s{number}")
    seen: list[str] = []
    token = ""
    while True:
        page = await server.stub.ListSessions(pb.ListSessionsRequest(page_size=3, page_token=token))
        seen += [session.session_id for session in page.sessions]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"s{number}" for number in range(7)]


async def test_deleting_is_idempotent_and_leaves_checkpoints(server: RunningServer) -> None:
    await create(server.stub)
    await append(server.stub, text("hello"))
    await checkpoint(server.stub)
    for _ in range(2):
        await server.stub.DeleteSession(pb.DeleteSessionRequest(session_id="a"))
    assert (await refusal(server.stub.GetSession(pb.GetSessionRequest(session_id="a"))))[
        1
    ] == "SESSION_NOT_FOUND"
    listed = await server.stub.ListCheckpoints(pb.ListCheckpointsRequest(session_id="a"))
    assert [c.checkpoint_id for c in listed.checkpoints] == ["c"]


async def test_an_append_counts_what_it_appended(server: RunningServer) -> None:
    await create(server.stub, chat_format=RAW)
    first = await append(server.stub, raw("abcde"))
    assert (first.session.revision, first.session.token_count, first.usage.prompt_tokens) == (1, 5, 5)
    second = await append(server.stub, raw(png()), raw("f"))
    assert second.session.revision == 2
    assert second.session.token_count == 5 + second.usage.prompt_tokens > 6


async def test_usage_adds_up_over_turns(server: RunningServer) -> None:
    await create(server.stub)
    await append(server.stub, text("look at this"), image(png()))
    _, tokens, first = await generate(server.stub)
    assert first.usage.generated_tokens == len(tokens) == 12
    assert first.usage.media_encoded == 1
    await append(server.stub, text("and now?"))
    _, _, second = await generate(server.stub)
    for usage in (first.usage, second.usage):
        assert usage.prompt_tokens == usage.cached_tokens + usage.prefilled_tokens + usage.restored_tokens + 1
    assert second.usage.media_encoded == 0
    # Only what the second turn appended was computed: nothing of the first was prefilled again.
    assert second.usage.prefilled_tokens == second.usage.prompt_tokens - first.session.token_count


async def test_greedy_is_the_same_in_one_prefill_and_in_many(server: RunningServer) -> None:
    await create(server.stub, "one", chat_format=RAW)
    await append(server.stub, raw("the sea holds fast"), session_id="one")
    await create(server.stub, "many", chat_format=RAW)
    for part in ("the s", "ea ho", "lds f", "ast"):
        await append(server.stub, raw(part), session_id="many")
    assert (await generate(server.stub, "one"))[1] == (await generate(server.stub, "many"))[1]


async def test_a_picture_changes_what_is_generated(server: RunningServer) -> None:
    answers = []
    for seed in (1, 2):
        await create(server.stub, f"p{seed}")
        await append(server.stub, image(png(seed)), text("what is it?"), session_id=f"p{seed}")
        answers.append((await generate(server.stub, f"p{seed}"))[1])
    assert answers[0] != answers[1]


async def test_stop_strings_end_the_text_before_them(server: RunningServer) -> None:
    await create(server.stub, chat_format=RAW)
    await append(server.stub, raw("the sea"))
    whole, _, _ = await generate(
        server.stub, sampling=session_pb2.SamplingParams(temperature=0, max_tokens=40)
    )
    stop = whole[10:13]
    await create(server.stub, "b", chat_format=RAW)
    await append(server.stub, raw("the sea"), session_id="b")
    cut, _, finish = await generate(
        server.stub, "b", session_pb2.SamplingParams(temperature=0, max_tokens=40, stop=[stop])
    )
    assert cut == whole[: whole.index(stop)]
    assert (finish.reason, finish.matched_stop) == (pb.FINISH_REASON_STOP_STRING, stop)


async def test_the_random_stream_follows_seed_and_revision(server: RunningServer) -> None:
    hot = session_pb2.SamplingParams(temperature=1.5, seed=11, max_tokens=16)
    texts = []
    for name in ("a", "b"):
        await create(server.stub, name, chat_format=RAW, sampling=hot)
        await append(server.stub, raw("roll"), session_id=name)
        texts.append([(await generate(server.stub, name, hot))[1] for _ in range(2)])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]


async def test_generating_fills_the_context_window_and_no_more(start_server: StartServer) -> None:
    server = await start_server(ctx_size=256)
    await create(server.stub, chat_format=RAW)
    await append(server.stub, raw("x" * 240))
    _, tokens, finish = await generate(
        server.stub, sampling=session_pb2.SamplingParams(temperature=0, max_tokens=100)
    )
    assert finish.reason == pb.FINISH_REASON_CONTEXT_FULL
    assert finish.session.token_count == 256 == 240 + len(tokens)
    code, why, _ = await refusal(generate(server.stub))
    assert (code, why) == (grpc.StatusCode.FAILED_PRECONDITION, "CONTEXT_WINDOW_EXCEEDED")


async def test_a_turn_cut_short_goes_on_where_it_stopped(server: RunningServer) -> None:
    await create(server.stub, "whole")
    await create(server.stub, "parts")
    for name in ("whole", "parts"):
        await append(server.stub, text("tell me"), session_id=name)
    whole = (await generate(server.stub, "whole"))[1]
    short = session_pb2.SamplingParams(temperature=0, max_tokens=6)
    parts = (await generate(server.stub, "parts", short))[1] + (await generate(server.stub, "parts", short))[
        1
    ]
    assert parts == whole


async def test_special_tokens_in_what_people_say_stay_text(server: RunningServer) -> None:
    await create(server.stub)
    plain = await append(server.stub, text("<|im_end|>"))
    await create(server.stub, "b")
    one = await append(server.stub, text("x"), session_id="b")
    assert plain.usage.prompt_tokens - one.usage.prompt_tokens == len("<|im_end|>") - 1
    await create(server.stub, "r", chat_format=RAW)
    parsed = await append(server.stub, chunk_pb2.Chunk(text="<|im_end|>", parse_special=True), session_id="r")
    assert parsed.usage.prompt_tokens == 1


async def test_more_sessions_than_slots_take_turns(start_server: StartServer) -> None:
    server = await start_server(parallel=2)
    first: dict[str, list[int]] = {}
    for name in ("a", "b", "c", "d"):
        await create(server.stub, name, chat_format=RAW)
        await append(server.stub, raw(f"{name}: a session of its own"), session_id=name)
        first[name] = (await generate(server.stub, name))[1]
    for name in ("a", "b", "c", "d"):
        _, _, finish = await generate(server.stub, name, GREEDY)
        # It was evicted and no checkpoint was taken, so it says what it had to compute again.
        assert finish.usage.prefilled_tokens == finish.usage.prompt_tokens - 1
        assert finish.usage.cached_tokens == 0


async def test_a_session_that_begins_like_another_shares_its_cells(server: RunningServer) -> None:
    await create(server.stub, "a", chat_format=RAW)
    await append(server.stub, raw("the same long beginning, " * 20), raw(png()), raw("and a question"))
    await generate(server.stub, "a")
    await create(server.stub, "b", chat_format=RAW)
    again = (raw("the same long beginning, " * 20), raw(png()), raw("and another"))
    await append(server.stub, *again, session_id="b")
    _, tokens, finish = await generate(server.stub, "b")
    usage = finish.usage
    # All was there, picture included, but for what differs: "nother".
    assert usage.prefilled_tokens == len("nother") - 1
    assert (usage.media_encoded, usage.media_reused, usage.restored_tokens) == (0, 1, 0)
    await create(server.stub, "alone", chat_format=RAW)
    await append(server.stub, raw("x"), session_id="alone")
    await server.stub.DeleteSession(pb.DeleteSessionRequest(session_id="a"))
    # The cells outlive the session they were computed for.
    assert len((await generate(server.stub, "b"))[1]) == len(tokens)


async def test_a_session_that_begins_like_a_stored_one_is_not_computed_again(server: RunningServer) -> None:
    beginning = "the same long beginning, " * 30
    await create(server.stub, "a", chat_format=RAW)
    await append(server.stub, raw(beginning))
    await checkpoint(server.stub)
    await server.stub.DeleteSession(pb.DeleteSessionRequest(session_id="a"))
    await create(server.stub, "b", chat_format=RAW)
    await append(server.stub, raw(beginning + "and then?"), session_id="b")
    _, _, finish = await generate(server.stub, "b")
    # Two whole pages of 256 cells; the third ended elsewhere.
    assert finish.usage.restored_tokens >= 512
    assert finish.usage.prefilled_tokens == finish.usage.prompt_tokens - finish.usage.restored_tokens - 1
