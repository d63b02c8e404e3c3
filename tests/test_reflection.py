"""The service driven through reflection alone, knowing no generated code."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.conftest import RunningServer


class Explorer:
    """Learns services from a channel and calls them with plain dictionaries."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        self._pool = descriptor_pool.DescriptorPool()
        self._known: set[str] = set()

    async def ask(self, **question: Any) -> Any:
        """One question to the reflection service."""
        request = reflection_pb2.ServerReflectionRequest(**question)
        call = self._stub.ServerReflectionInfo(iter([request]))
        async for reply in call:
            return reply
        raise AssertionError("reflection did not answer")

    async def services(self) -> list[str]:
        """What the server offers."""
        reply = await self.ask(list_services="")
        return [service.name for service in reply.list_services_response.service]

    async def learn(self, symbol: str) -> None:
        """Loads the files that define a symbol, dependencies first."""
        reply = await self.ask(file_containing_symbol=symbol)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(data)
            for data in reply.file_descriptor_response.file_descriptor_proto
        ]
        for file in files:
            await self._add(file)

    async def _add(self, file: Any) -> None:
        if file.name in self._known:
            return
        self._known.add(file.name)
        for name in file.dependency:
            reply = await self.ask(file_by_filename=name)
            for data in reply.file_descriptor_response.file_descriptor_proto:
                await self._add(descriptor_pb2.FileDescriptorProto.FromString(data))
        self._pool.Add(file)

    async def call(self, method: str, **fields: Any) -> list[dict[str, Any]]:
        """Calls a method by its name; every reply as a dictionary."""
        service, _, name = method.rpartition(".")
        described = self._pool.FindServiceByName(service).FindMethodByName(name)
        request = json_format.ParseDict(fields, message_factory.GetMessageClass(described.input_type)())
        multi = self._channel.unary_stream if described.server_streaming else self._channel.unary_unary
        caller: Any = multi(
            f"/{service}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
        )
        call = caller(request)
        replies = [reply async for reply in call] if described.server_streaming else [await call]
        return [json_format.MessageToDict(reply) for reply in replies]


async def test_a_client_that_knows_nothing_can_hold_a_session(server: RunningServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        explorer = Explorer(channel)
        offered = await explorer.services()
        assert {"holdfast.v1.SessionService", "grpc.health.v1.Health"} <= set(offered)
        service = "holdfast.v1.SessionService"
        await explorer.learn(service)
        await explorer.call(f"{service}.CreateSession", session_id="blind")
        chunks = [{"role": "ROLE_USER", "text": "hello"}]
        await explorer.call(f"{service}.AppendChunks", session_id="blind", chunks=chunks)
        events = await explorer.call(
            f"{service}.Generate", session_id="blind", sampling={"max_tokens": 4, "temperature": 0}
        )
        assert events[-1]["finish"]["reason"] == "FINISH_REASON_MAX_TOKENS"
        assert sum(len(event["delta"]["tokenIds"]) for event in events[:-1]) == 4
        taken = await explorer.call(f"{service}.Checkpoint", session_id="blind", checkpoint_id="c")
        assert taken[0]["checkpoint"]["tokenCount"] == events[-1]["finish"]["session"]["tokenCount"]
        restored = await explorer.call(f"{service}.Restore", checkpoint_id="c", new_session_id="again")
        assert restored[0]["mode"] == "RESTORE_MODE_RESTORED"
