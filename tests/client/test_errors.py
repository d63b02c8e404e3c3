"""Exceptions by reason, over a real connection."""

from __future__ import annotations

import pickle
import re

import grpc
import pytest

import holdfast
from holdfast import HoldfastError, errors
from holdfast_server.errors import Reason
from tests.client.conftest import Fake
from tests.client.fake import Failure
from tests.conftest import REPOSITORY

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


async def raised(fake: Fake, failure: Failure) -> HoldfastError:
    """What a call that fails so raises."""
    fake.service.failures["CreateSession"] = failure
    async with holdfast.AsyncClient(fake.address) as client:
        with pytest.raises(HoldfastError) as failed:
            await client.create_session()
    return failed.value


def test_the_table_knows_every_reason_of_the_server() -> None:
    assert set(errors._BY_REASON) == {str(reason) for reason in Reason}


def test_the_table_knows_every_reason_of_the_contract() -> None:
    contract = (REPOSITORY / "protos/holdfast/v1/session_service.proto").read_text()
    documented = " ".join(re.findall(r"// (.*)", contract))
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", documented))
    codes = {code.name for code in grpc.StatusCode}
    rebuild_reasons = {"PAGE_CORRUPT", "PAGE_MISSING", "KEY_MISMATCH", "STATE_REFUSED", "MODEL_CHANGED"}
    assert named - codes - rebuild_reasons <= set(errors._BY_REASON)
    assert len(named) > 15


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_reason_has_its_class_whatever_the_code(fake: Fake, reason: Reason) -> None:
    error = await raised(fake, Failure(grpc.StatusCode.UNKNOWN, str(reason)))
    assert type(error) is errors._BY_REASON[reason]
    assert error.reason == reason
    assert error.code is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize("code", CODES)
async def test_a_reason_yet_unknown_is_told_by_its_code(fake: Fake, code: grpc.StatusCode) -> None:
    error = await raised(fake, Failure(code, "NEWER_THAN_THIS_CLIENT"))
    assert type(error) is errors._BY_CODE.get(code, HoldfastError)
    assert error.reason == "NEWER_THAN_THIS_CLIENT"
    assert error.code is code


async def test_everything_the_server_says_arrives(fake: Fake) -> None:
    failure = Failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        message="labels is wrong",
        metadata={"limit": "64"},
        field="labels",
        retry_after=0.25,
    )
    error = await raised(fake, failure)
    assert error.message == "labels is wrong"
    assert str(error) == "labels is wrong [INVALID_FIELD]"
    assert error.metadata == {"limit": "64"}
    assert error.fields == (holdfast.FieldViolation("labels", "is wrong"),)
    assert error.retry_after == 0.25
    assert repr(error) == (
        "InvalidArgumentError('labels is wrong', reason='INVALID_FIELD', code=INVALID_ARGUMENT)"
    )


async def test_a_reason_of_another_domain_is_not_ours(fake: Fake) -> None:
    error = await raised(fake, Failure(grpc.StatusCode.UNAVAILABLE, "SESSION_NOT_FOUND", domain="proxy"))
    assert type(error) is holdfast.UnavailableError
    assert error.reason == ""


async def test_no_details_at_all(fake: Fake) -> None:
    error = await raised(fake, Failure(grpc.StatusCode.NOT_FOUND))
    assert type(error) is holdfast.NotFoundError
    assert (error.reason, error.metadata, error.fields, error.retry_after) == ("", {}, (), None)
    assert str(error) == "no [NOT_FOUND]"


@pytest.mark.parametrize("mangled", [b"\xff\xff\xff", b""])
def test_mangled_details_are_no_details(mangled: bytes) -> None:
    error = errors.from_rpc_error(rpc_error(mangled))
    assert type(error) is holdfast.ConflictError
    assert error.reason == ""


def test_a_mangled_detail_is_none() -> None:
    status = Failure(grpc.StatusCode.ABORTED, "SESSION_BUSY").status()
    status.details[0].value = b"\xff\xff"
    error = errors.from_rpc_error(rpc_error(status.SerializeToString()))
    assert type(error) is holdfast.ConflictError


def rpc_error(details: bytes) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", details))
    return grpc.aio.AioRpcError(grpc.StatusCode.ABORTED, grpc.aio.Metadata(), trailing, "no", None)


def test_the_current_revision_of_a_stale_one() -> None:
    assert holdfast.StaleRevisionError("x", metadata={"current_revision": "12"}).current_revision == 12
    assert holdfast.StaleRevisionError("x", metadata={"current_revision": "soon"}).current_revision is None
    assert holdfast.StaleRevisionError("x").current_revision is None


@pytest.mark.parametrize("cls", sorted({*errors._BY_REASON.values(), *errors._BY_CODE.values()}, key=str))
def test_errors_survive_pickling(cls: type[HoldfastError]) -> None:
    error = cls("m", code=grpc.StatusCode.ABORTED, reason="R", metadata={"a": "b"}, retry_after=2.0)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), again.metadata, again.retry_after) == ("m [R]", {"a": "b"}, 2.0)


def test_the_tree_is_drawn_as_it_is() -> None:
    """The tree at the top of errors.py names every class, under its parent."""
    drawing = re.findall(r"^    ([│ ]*(?:[├└]── )?)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    ancestors: list[str] = []
    drawn = {}
    for indent, name in drawing:
        depth = len(indent) // 4
        ancestors[depth:] = [name]
        drawn[name] = ancestors[depth - 1] if depth else "Exception"
    classes = {c.__name__: c.__bases__[0].__name__ for c in _family(HoldfastError)}
    assert drawn == classes


def _family(cls: type[HoldfastError]) -> list[type[HoldfastError]]:
    return [cls, *(c for child in cls.__subclasses__() for c in _family(child))]
