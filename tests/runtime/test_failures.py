"""Exceptions there and back (R22), and what the log has of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio
from msgspec import Raw

from tests.runtime.ends import open_ends, quiet
from trio_streamrpc import (
    Aborted,
    CallCancelled,
    CleanupTimeout,
    Code,
    ConnectionLost,
    FailedPrecondition,
    InternalError,
    LocalProtocolError,
    NotFound,
    PermissionDenied,
    RemoteError,
    RemoteProtocolError,
    RpcError,
    Unavailable,
    rpc,
)
from trio_streamrpc.errors import ERRORS_BY_CODE
from trio_streamrpc.protocol.frames import ErrorInfo
from trio_streamrpc.runtime.failures import (
    describe,
    describe_listed,
    error_from,
    is_confined,
    only_exit,
    text_of,
)


class OutOfStock(RpcError):
    code = Code.FAILED_PRECONDITION


class NoSuchSymbol(Exception):
    pass


@attrs.define(auto_exc=True)
class TooMany(Exception):
    limit: int
    who: str = "you"


class Coded(RpcError):
    code = Code.NOT_FOUND


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class MuteListed(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Careless(RpcError):
    """Overwrites what the library keeps in an RpcError."""

    def __init__(self, name: Any, message: Any = None, code: Any = Code.ABORTED) -> None:
        self.name = name
        self.message = message
        self.code = code


class Forgetful(RpcError):
    """Never calls the constructor of RpcError."""

    def __init__(self) -> None:
        pass


class Service:
    """Raises what a test puts here."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)

    @rpc(errors=(NoSuchSymbol, TooMany, Coded, MuteListed))
    async def fail(self, which: int = 0) -> None:
        raise self.errors[which]

    @rpc(errors=(NoSuchSymbol,))
    async def ticks(self, which: int = 0) -> AsyncIterator[int]:
        yield 1
        raise self.errors[which]

    @rpc
    async def fine(self) -> int:
        return 1


async def raised_by(error: BaseException, **options: Any) -> BaseException:
    """What a caller sees of it, and the connection lives."""
    async with open_ends(Service(error), **options) as ends:
        with pytest.raises(Exception) as caught:
            await ends.client.proxy(Service).fail()
        assert await ends.client.call("fine") == 1
    return caught.value


# --- codes


@pytest.mark.parametrize("code", Code)
async def test_a_code_arrives_as_its_class(code, autojump_clock, caplog):
    """R22: the class is found by the code, and by nothing else."""
    error = await raised_by(RpcError("why", code=code))
    assert type(error) is ERRORS_BY_CODE[code]
    assert isinstance(error, RpcError)
    assert (error.code, error.message) == (code, "why")
    assert error.__cause__ is None
    # An error with a code is an answer, and no accident.
    assert caplog.records == []


async def test_subclasses_choose_their_codes(autojump_clock, caplog):
    error = await raised_by(OutOfStock("none left"))
    assert type(error) is FailedPrecondition
    assert error.name == "OutOfStock"
    assert str(error) == "none left"
    error = await raised_by(NotFound("x"))
    assert type(error) is NotFound
    error = await raised_by(CallCancelled("by itself"))
    assert type(error) is CallCancelled
    assert caplog.records == []


async def test_errors_of_connections_arrive_as_what_they_mean(autojump_clock):
    """A handler whose own connection broke: for its caller nothing is lost but the answer."""
    error = await raised_by(ConnectionLost("elsewhere"))
    assert type(error) is Unavailable
    assert error.name == "ConnectionLost"
    error = await raised_by(LocalProtocolError("elsewhere"))
    assert type(error) is RemoteProtocolError
    error = await raised_by(CleanupTimeout("elsewhere"))
    assert type(error) is CleanupTimeout


async def test_data_travels_with_an_error(autojump_clock):
    error = await raised_by(PermissionDenied("no", data={"who": ["me"], "raw": b"\x00"}))
    assert isinstance(error, PermissionDenied)
    assert error.data == {"who": ["me"], "raw": b"\x00"}
    error = await raised_by(PermissionDenied("no", data=object()))
    assert isinstance(error, PermissionDenied)
    assert error.data is None


async def test_any_text_arrives(autojump_clock):
    text = "tab\tcr\rlf\n\0 é 🎉 \u2028"
    for made in (NotFound(text), ValueError(text)):
        error = await raised_by(made)
        assert isinstance(error, RpcError)
        assert error.message == text
    for made in (NotFound("a\ud800b"), ValueError("a\ud800b")):
        error = await raised_by(made)
        assert isinstance(error, RpcError)
        assert error.message == "a\\ud800b"
    error = await raised_by(NotFound("x" * 1_000_000))
    assert isinstance(error, NotFound)
    assert 1000 < len(error.message) < 20_000


class Causeless(RpcError):
    def __init__(self) -> None:
        self.causes = None  # type: ignore[assignment]


class Raising(RpcError):
    def __init__(self) -> None:
        pass

    @property
    def message(self) -> str:  # type: ignore[override]
        raise ValueError("no message")


class Codeless(RpcError):
    def __init__(self) -> None:
        pass

    @property
    def code(self) -> Code:  # type: ignore[override]
        raise RuntimeError("no code")


def nested(depth: int) -> Exception:
    error: Exception = ValueError("deep")
    for _ in range(depth):
        error = ExceptionGroup("group", [error])
    return error


@pytest.mark.parametrize(
    "made",
    [
        Causeless(),
        Raising(),
        Codeless(),
        nested(3000),
        Careless(5),
        Careless("\ud800"),
        Careless(None, 7),
        Careless("x", b"bytes"),
        Careless("x", "y", "NO_SUCH_CODE"),
        Careless("x", "y", 17),
        Careless("x", "y", None),
        Forgetful(),
        Mute(),
        type("Bad", (Exception,), {"__str__": lambda self: 5})(),
    ],
    ids=lambda made: type(made).__name__,
)
async def test_careless_exceptions_end_their_call_alone(made, autojump_clock):
    error = await raised_by(made)
    assert isinstance(error, RpcError)


# --- everything else


async def test_any_other_exception_is_a_remote_error(autojump_clock, caplog):
    """R22, and the log has it once, with its traceback."""
    error = await raised_by(ValueError("why"))
    assert type(error) is RemoteError
    assert (error.code, error.name, error.message) == (Code.UNKNOWN, "ValueError", "why")
    assert str(error) == "ValueError: why"
    assert error.traceback is None
    assert error.data is None
    (record,) = caplog.records
    assert record.name == "trio_streamrpc"
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "fail failed"
    assert record.exc_info is not None
    assert record.exc_info[2] is not None


async def test_a_remote_error_that_is_passed_on(autojump_clock, caplog):
    """Where it came from stays in its name."""
    made = RemoteError("why")
    made.name = "ValueError"
    error = await raised_by(made)
    assert type(error) is RemoteError
    assert str(error) == "ValueError: why"
    assert caplog.records == []  # it was logged where it happened


async def test_a_group_is_one_error_with_its_causes(autojump_clock, caplog):
    group = ExceptionGroup(
        "several", [ValueError("a"), NotFound("b"), ExceptionGroup("inner", [KeyError("c")])]
    )
    error = await raised_by(group)
    assert type(error) is RemoteError
    assert error.name == "ExceptionGroup"
    assert [(type(each), each.name, each.message) for each in error.causes] == [
        (RemoteError, "ValueError", "a"),
        (NotFound, "NotFound", "b"),
        (RemoteError, "ExceptionGroup", "inner (1 sub-exception)"),
    ]
    assert [each.name for each in error.causes[2].causes] == ["KeyError"]
    assert len(caplog.records) == 1
    # A group that is passed on keeps its parts.
    again = await raised_by(error)
    assert isinstance(again, RemoteError)
    assert [each.name for each in again.causes] == [each.name for each in error.causes]


async def test_a_nurserys_group(autojump_clock):
    class Nursery:
        @rpc
        async def fail(self) -> None:
            async def crash(text: str) -> None:
                raise ValueError(text)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(crash, "one")
                nursery.start_soon(crash, "two")

    async with open_ends(Nursery()) as ends:
        with pytest.raises(RemoteError) as caught:
            await ends.client.call("fail")
        assert sorted(each.message for each in caught.value.causes) == ["one", "two"]


async def test_groups_without_an_end(autojump_clock):
    """What is told of a tree of groups is bounded, in depth and in width."""
    deep: Exception = ValueError("leaf")
    for _ in range(200):
        deep = ExceptionGroup("deep", [deep])
    error = await raised_by(deep)
    depth = 0
    while isinstance(error, RpcError) and error.causes:
        (error,) = error.causes
        depth += 1
    assert 1 <= depth < 20
    wide = ExceptionGroup("wide", [ValueError(str(number)) for number in range(1000)])
    error = await raised_by(wide)
    assert isinstance(error, RemoteError)
    assert 1 <= len(error.causes) <= 100


async def test_an_error_in_a_stream_after_its_items(autojump_clock, caplog):
    async with open_ends(Service(ValueError("why"), NoSuchSymbol("X"), NotFound("y"))) as ends:
        api = ends.client.proxy(Service)
        for which, kind in enumerate((RemoteError, NoSuchSymbol, NotFound)):
            async with api.ticks(which) as stream:
                assert await stream.receive() == 1
                for _ in range(2):
                    with pytest.raises(kind):
                        await stream.receive()
    assert len(caplog.records) == 1


# --- @rpc(errors=…)


async def test_listed_exceptions_arrive_as_themselves(autojump_clock, caplog):
    error = await raised_by(NoSuchSymbol("ACME", 5))
    assert type(error) is NoSuchSymbol
    assert error.args == ("ACME", 5)
    error = await raised_by(TooMany(3, who="me"))
    assert isinstance(error, TooMany)
    assert (error.limit, error.who) == (3, "me")
    error = await raised_by(Coded("there"))
    assert type(error) is Coded
    assert error.code is Code.NOT_FOUND
    assert caplog.records == []


async def test_a_listed_exception_without_a_contract(autojump_clock):
    """No name on the wire is looked up anywhere but in the method's own list."""
    async with open_ends(Service(NoSuchSymbol("ACME"), Coded("there"))) as ends:
        with pytest.raises(RemoteError) as caught:
            await ends.client.call("fail", 0)
        assert caught.value.name == "NoSuchSymbol"
        assert caught.value.data == ["ACME"]
        with pytest.raises(NotFound, match="there"):
            await ends.client.call("fail", 1)


async def test_a_listed_exception_whose_data_cannot_travel(autojump_clock):
    error = await raised_by(NoSuchSymbol(object()))
    assert type(error) is RemoteError
    assert error.name == "NoSuchSymbol"


async def test_a_listed_exception_that_has_no_text(autojump_clock):
    error = await raised_by(MuteListed("x"))
    assert type(error) is MuteListed


# --- mask_errors


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_masked_errors_tell_nothing(encoding, autojump_clock, caplog):
    """The secret is nowhere on the wire; an id is in both places."""
    secrets = [
        ValueError("hunter2"),
        ExceptionGroup("hunter2", [ValueError("hunter2")]),
        RemoteError("hunter2", data="hunter2"),
        type("hunter2", (Exception,), {})(),
    ]
    service = Service(*secrets)
    async with open_ends(service, mask_errors=True, encoding=encoding) as ends:
        for which in range(len(secrets)):
            with pytest.raises(InternalError) as caught:
                await ends.client.call("fail", which)
            assert caught.value.name == "InternalError"
            assert caught.value.causes == ()
            reference = caught.value.message.rpartition(" ")[2]
            assert len(reference) == 12
            assert f"[{reference}]" in caplog.records[-1].getMessage()
            async with ends.client.stream("ticks", which) as stream:
                assert await stream.receive() == 1
                with pytest.raises(InternalError):
                    await stream.receive()
        assert b"hunter2" not in ends.down.bytes
        assert b"ValueError" not in ends.down.bytes
        assert len(caplog.records) == 2 * len(secrets)


async def test_masked_are_only_accidents(autojump_clock):
    """What a handler chose to tell arrives."""
    error = await raised_by(NotFound("told"), mask_errors=True)
    assert type(error) is NotFound
    assert error.message == "told"
    error = await raised_by(NoSuchSymbol("told"), mask_errors=True)
    assert type(error) is NoSuchSymbol


async def test_masked_results_that_cannot_be_encoded(autojump_clock, caplog):
    class Hunter2:
        pass

    async def thing() -> Any:
        return Hunter2()

    async with open_ends({"thing": thing}, mask_errors=True) as ends:
        with pytest.raises(InternalError, match="internal error, reference"):
            await ends.client.call("thing")
        assert b"Hunter2" not in ends.down.bytes


async def test_an_error_that_nobody_hears_of_is_logged(autojump_clock, caplog):
    """The connection had gone when the handler failed."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("unheard")

    async with open_ends({"fail": fail}, clean=False) as ends:
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(ConnectionLost):
                    await ends.client.call("fail")

            nursery.start_soon(call)
            await quiet()
            await trio.aclose_forcefully(ends.up)
            await quiet()
    assert [record.getMessage() for record in caplog.records] == ["fail failed"]


# --- the functions themselves


def test_what_is_confined_to_a_call():
    for error in (ValueError(), GeneratorExit(), ExceptionGroup("g", [ValueError()])):
        assert is_confined(error)
    assert is_confined(BaseExceptionGroup("g", [GeneratorExit(), ValueError()]))
    for other in (KeyboardInterrupt(), SystemExit(), type("Other", (BaseException,), {})()):
        group = BaseExceptionGroup("g", [ValueError(), other])
        assert not is_confined(other)
        assert not is_confined(group)
        assert not is_confined(BaseExceptionGroup("h", [ValueError(), group]))


def test_what_is_left_without_generator_exit():
    assert only_exit(GeneratorExit()) is None
    assert only_exit(BaseExceptionGroup("g", [GeneratorExit()])) is None
    nested = BaseExceptionGroup("g", [BaseExceptionGroup("h", [GeneratorExit()])])
    assert only_exit(nested) is None
    error = ValueError()
    assert only_exit(error) is error
    rest = only_exit(BaseExceptionGroup("g", [GeneratorExit(), error]))
    assert isinstance(rest, ExceptionGroup)
    assert rest.exceptions == (error,)


def test_an_unknown_code_on_the_wire():
    """R22: a newer side may have codes that this one does not know."""
    error = error_from(ErrorInfo("FROM_THE_FUTURE", "Name", "why"))
    assert type(error) is RemoteError
    assert (error.name, error.message, error.retry) == ("Name", "why", False)
    assert error_from(ErrorInfo("NOT_FOUND"), retry=True).retry
    assert error_from(ErrorInfo("NOT_FOUND")).name == "NotFound"


def test_cleanup_timeout_is_told_by_name_and_code():
    name = "CleanupTimeout"
    assert type(error_from(ErrorInfo("DEADLINE_EXCEEDED", name))) is CleanupTimeout
    assert type(error_from(ErrorInfo("ABORTED", name))) is Aborted


def test_data_that_cannot_be_decoded():
    def decode(data: Any) -> Any:
        raise RpcError("broken")

    info = ErrorInfo("ABORTED")
    assert error_from(info, decode=decode).data is None
    info.data = Raw(b"\xc1")
    assert error_from(info, decode=decode).data is None
    assert error_from(info, decode=bytes).data == b"\xc1"


def test_descriptions_without_an_encoder():
    info = describe(NotFound("x", data=1), method="m")
    assert (info.code, info.name, info.message, len(info.data)) == ("NOT_FOUND", "NotFound", "x", 0)
    assert describe_listed(ValueError("x"), "Name", None).name == "Name"
    assert text_of(Mute()) == "(its message could not be made)"


def test_causes_without_an_end_on_the_wire():
    """R22: a peer's tree of causes is followed a few steps, however deep it goes."""
    info = ErrorInfo("UNKNOWN", "Deepest", "")
    for number in range(900):
        info = ErrorInfo("UNKNOWN", f"E{number}", "", causes=[info])
    error = error_from(info)
    depth = 0
    while error.causes:
        [error] = error.causes
        depth += 1
    assert 1 <= depth < 10


async def test_a_traceback_that_cannot_be_shown(autojump_clock, monkeypatch):
    """The log is told what it can be told, and the caller hears of its error all the same."""
    told: list[str] = []

    class Shallow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info:
                raise RecursionError
            told.append(record.getMessage())

    handler = Shallow()
    logger = logging.getLogger("trio_streamrpc")
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(handler)
    try:
        error = await raised_by(ValueError("why"))
    finally:
        logger.removeHandler(handler)
    assert isinstance(error, RemoteError)
    assert error.name == "ValueError"
    [line] = told
    assert "ValueError, whose traceback cannot be shown" in line


async def test_an_ending_that_cannot_be_told(autojump_clock, caplog):
    """A listed exception that fails when it is looked at ends its call alone."""

    class Broken:
        @rpc(errors=(Codeless,))
        async def fail(self) -> None:
            raise Codeless

        @rpc
        async def work(self) -> int:
            return 1

    async with open_ends(Broken()) as ends:
        with pytest.raises(InternalError, match="how fail has ended could not be told"):
            await ends.client.call("fail")
        assert await ends.client.call("work") == 1
    assert "how fail has ended could not be told" in caplog.messages
