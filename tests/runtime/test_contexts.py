"""Remote contexts (R20): entering, calling what they yield, leaving, and all that goes wrong."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing

from tests.runtime.ends import Cut, Ends, open_ends, quiet, sweep
from tests.runtime.peer import open_against
from trio_streamrpc import (
    AlreadyExists,
    CallCancelled,
    CleanupTimeout,
    ConnectionLost,
    FlowControlError,
    InternalError,
    Limits,
    NotFound,
    PermissionDenied,
    RemoteError,
    ResourceExhausted,
    RpcError,
    Unavailable,
    rpc,
)

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Rejected(Exception):
    """Listed by some methods: it arrives as itself."""


class History:
    def __init__(self, entries: list[int]) -> None:
        self.entries = entries

    @rpc
    async def last(self) -> int:
        return self.entries[-1]

    @rpc
    async def all(self) -> AsyncIterator[int]:
        for each in self.entries:
            yield each


class Account:
    """What a context yields: an object with methods of every kind."""

    history: History

    def __init__(self, log: list[str], name: str = "account") -> None:
        self.log = log
        self.name = name
        self.history = History([0])

    @rpc
    async def add(self, amount: int) -> int:
        self.history.entries.append(self.history.entries[-1] + amount)
        return self.history.entries[-1]

    @rpc
    async def fail(self) -> None:
        raise PermissionDenied("not yours")

    @rpc
    async def wait(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.log.append("wait: finally")

    @rpc
    async def count(self) -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.log.append("count: finally")

    @rpc
    async def total(self, amounts: AsyncIterable[int]) -> int:
        return sum([each async for each in amounts])

    @rpc
    async def each(self, report: Callable[[int], Awaitable[int]]) -> list[int]:
        return [await report(each) for each in self.history.entries]

    @rpc
    async def who(self) -> str:
        return WHO.get()

    @rpc
    @asynccontextmanager
    async def savepoint(self, name: str) -> AsyncIterator[Account]:
        self.log.append(f"{name}: begin")
        try:
            yield Account(self.log, name)
        except BaseException as error:
            self.log.append(f"{name}: {type(error).__name__}")
            raise
        else:
            self.log.append(f"{name}: end")

    @property
    @rpc
    def balance(self) -> int:
        return self.history.entries[-1]


def said(error: BaseException) -> str:
    """What arrived in a context: its class, and who raised it elsewhere and said what."""
    if isinstance(error, RemoteError):
        return f"RemoteError {error.name} {error.message}"
    return type(error).__name__


class Plain:
    """It has no methods that can be called, and is no data."""


class Service:
    def __init__(self) -> None:
        self.log: list[str] = []

    @rpc
    @asynccontextmanager
    async def account(self, name: str = "account") -> AsyncIterator[Account]:
        self.log.append(f"{name}: begin")
        token = WHO.set(name)
        try:
            yield Account(self.log, name)
        except BaseException as error:
            self.log.append(f"{name}: {said(error)}")
            raise
        else:
            self.log.append(f"{name}: end")
        finally:
            WHO.reset(token)
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.log.append(f"{name}: finally")

    @rpc
    @asynccontextmanager
    async def data(self, value: dict[str, int]) -> AsyncIterator[dict[str, int]]:
        try:
            yield value
        finally:
            self.log.append("data: finally")

    @rpc
    @asynccontextmanager
    async def maybe(self, there: bool) -> AsyncIterator[Account | None]:
        yield Account(self.log) if there else None

    @rpc
    @asynccontextmanager
    async def suppressing(self) -> AsyncIterator[None]:
        try:
            yield
        except RemoteError as error:
            self.log.append(f"suppressed {said(error)}")

    @rpc(errors=(Rejected,))
    @asynccontextmanager
    async def strict(self, *, replace: bool = False) -> AsyncIterator[None]:
        try:
            yield
        except Rejected as error:
            self.log.append(f"rejected {error.args}")
            if replace:
                raise Rejected("something else", 2) from error
            raise

    @rpc
    @asynccontextmanager
    async def replacing(self) -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise AlreadyExists("another") from error

    @rpc
    @asynccontextmanager
    async def failing(self, where: str) -> AsyncIterator[Account]:
        if where == "enter":
            raise ValueError("no entry")
        if where == "code":
            raise PermissionDenied("no entry")
        try:
            yield Account(self.log)
        finally:
            if where == "leave":
                raise ValueError("no way out")

    @rpc
    def declared(self, name: str) -> AbstractAsyncContextManager[Account]:
        return self.account(name)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def log(service: Service) -> list[str]:
    return service.log


# --- entering, calling, leaving


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_an_objects_methods_work_for_as_long_as_the_context_lasts(
    encoding, service, log, autojump_clock
):
    """R20: unary, streams, uploads, callbacks, namespaces."""
    async with open_ends(service, encoding=encoding) as ends:
        api = ends.client.proxy(Service)
        async with api.account("mine") as account:
            assert await account.add(5) == 5
            assert await account.add(amount=-2) == 3
            async with account.count() as numbers:
                assert [await numbers.receive() for _ in range(3)] == [0, 1, 2]
            assert await account.total(generate(1, 2, 3)) == 6  # type: ignore[arg-type]
            reported: list[int] = []

            async def report(each: int) -> int:
                await trio.sleep(1)
                reported.append(each)
                return each * 2

            assert await account.each(report) == [0, 10, 6]
            assert reported == [0, 5, 3]
            assert await account.history.last() == 3
            assert [each async for each in account.history.all()] == [0, 5, 3]
            with pytest.raises(PermissionDenied, match="not yours"):
                await account.fail()
            with pytest.raises(AttributeError, match=r"Account\.balance is a property of a remote"):
                account.balance  # noqa: B018
            with pytest.raises(AttributeError, match="Account has no @rpc method 'log'"):
                account.log  # noqa: B018
            assert log == ["mine: begin", "count: finally"]
        assert log[2:] == ["mine: end", "mine: finally"]


async def generate(*items: int) -> AsyncIterator[int]:
    for each in items:
        yield each


async def test_leaving_waits_for_the_exit(service, log, autojump_clock):
    """R7: when the block is left, the other side has finished."""
    async with open_ends(service) as ends:
        async with ends.client.proxy(Service).account():
            left = trio.current_time()
        assert trio.current_time() - left == 1
        assert log[-1] == "account: finally"
        assert [each["type"] for each in ends.up.sent("cancel")] == ["cancel"]
        assert ends.up.sent("cancel")[0]["mode"] == "close"
        assert ends.down.sent("end", "error") == [{"type": "end", "id": 1}]


async def test_entering_and_leaving_are_checkpoints(service, autojump_clock):
    async with open_ends(service) as ends:
        manager = ends.client.proxy(Service).data({})
        with trio.testing.assert_checkpoints():
            await manager.__aenter__()
        with trio.testing.assert_checkpoints():
            await manager.__aexit__(None, None, None)


async def test_a_context_may_yield_data(service, log, autojump_clock):
    async with open_ends(service) as ends:
        async with ends.client.proxy(Service).data({"a": 1}) as value:
            assert value == {"a": 1}
        assert log == ["data: finally"]


async def test_a_context_may_yield_an_object_or_none(service, autojump_clock):
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        async with api.maybe(False) as nothing:
            assert nothing is None
        async with api.maybe(True) as account:
            assert account is not None
            assert await account.add(1) == 1
        async with ends.client.context("maybe", False) as nothing:
            assert nothing is None


async def test_a_declared_context(service, log, autojump_clock):
    """A def that returns a context manager, whoever makes it."""
    async with open_ends(service) as ends:
        async with ends.client.proxy(Service).declared("d") as account:
            assert await account.add(1) == 1
        assert log == ["d: begin", "d: end", "d: finally"]


async def test_without_a_contract(service, log, autojump_clock):
    async with open_ends(service) as ends:
        async with ends.client.context("account", name="mine") as account:
            assert await account.add(5) == 5
            assert await account.history.last() == 5
            async with account.count() as numbers:
                assert await numbers.receive() == 0
            assert await account.balance() == 5
            with pytest.raises(RpcError, match="no method 'absent'"):
                await account.absent()
        async with ends.client.context("data", {"a": 1}) as value:
            assert value == {"a": 1}
        with pytest.raises(NotFound):
            await account.add(1)
        assert repr(ends.client.context("data", {})) == "<remote context data>"


async def test_contexts_on_objects_of_contexts(service, log, autojump_clock):
    """R20: each is left before the one that it belongs to."""
    async with open_ends(service) as ends:
        async with ends.client.proxy(Service).account("outer") as outer:
            async with outer.savepoint("middle") as middle:
                async with middle.savepoint("inner") as inner:
                    assert await inner.add(3) == 3
                    assert await middle.add(2) == 2
                assert log[-1] == "inner: end"
                with pytest.raises(NotFound, match="has ended"):
                    await inner.add(1)
                assert await middle.add(1) == 3
            assert await outer.add(1) == 1
        assert log == [
            "outer: begin",
            "middle: begin",
            "inner: begin",
            "inner: end",
            "middle: end",
            "outer: end",
            "outer: finally",
        ]


async def test_several_at_once(service, log, autojump_clock):
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        async with api.account("a") as a, api.account("b") as b:
            assert [await a.add(1), await b.add(2), await a.add(3)] == [1, 2, 4]
            assert [await a.who(), await b.who()] == ["a", "b"]


async def test_the_contexts_variables_are_seen_by_its_objects_methods(service, autojump_clock):
    async with open_ends(service) as ends:
        async with ends.client.proxy(Service).account("alice") as account:
            assert await account.who() == "alice"
            async with account.savepoint("s") as savepoint:
                assert await savepoint.who() == "alice"
        assert WHO.get() == "nobody"


async def test_a_context_is_entered_once(service, log, autojump_clock):
    async with open_ends(service) as ends:
        manager = ends.client.proxy(Service).account()
        async with manager:
            with pytest.raises(RuntimeError, match="was entered already"):
                await manager.__aenter__()
        with pytest.raises(RuntimeError, match="was entered already"):
            async with manager:
                raise AssertionError
        # One that is never entered is never called.
        ends.client.proxy(Service).account()
        assert log.count("account: begin") == 1


async def test_an_object_is_of_no_use_after_its_block(service, autojump_clock):
    """It is known here already: nothing is sent."""
    async with open_ends(service) as ends:
        async with ends.client.proxy(Service).account() as account:
            pass
        sent = len(ends.up.frames)
        with pytest.raises(NotFound, match="account has ended"):
            await account.add(1)
        with pytest.raises(NotFound, match="account has ended"):
            await account.history.last()
        with pytest.raises(NotFound, match="account has ended"):
            async with account.count():
                raise AssertionError
        with pytest.raises(NotFound, match="account has ended"):
            async with account.savepoint("s"):
                raise AssertionError
        assert len(ends.up.frames) == sent


# --- R26: places


async def test_the_methods_of_objects_need_no_place_of_a_call(service, autojump_clock):
    """R26: at max_calls=1, where the context itself has the one place."""
    async with open_ends(service, limits=Limits(max_calls=1)) as ends:
        api = ends.client.proxy(Service)
        async with api.account() as account:
            assert await account.add(1) == 1
            assert await account.total(generate(1, 2)) == 3  # type: ignore[arg-type]
            async with account.savepoint("s") as savepoint:
                assert await savepoint.add(1) == 1
                async with savepoint.count() as numbers:
                    assert await numbers.receive() == 0
            with trio.move_on_after(1) as waiting:
                async with api.account("second"):
                    raise AssertionError
            assert waiting.cancelled_caught
        async with api.account("third") as account:
            assert await account.add(1) == 1


async def test_the_methods_of_objects_have_places_of_their_own(service, autojump_clock):
    """R26: per root, and their callers wait."""
    async with open_ends(service, limits=Limits(max_object_calls=2)) as ends:
        api = ends.client.proxy(Service)
        async with api.account("a") as a, api.account("b") as b:
            async with a.savepoint("s") as savepoint, a.count():
                with trio.move_on_after(1) as waiting:
                    await savepoint.add(1)
                assert waiting.cancelled_caught
                assert await b.add(1) == 1
            assert await a.add(1) == 1


# --- errors in the block


async def test_an_error_is_thrown_into_the_context(service, log, autojump_clock):
    """R20: it lets it pass, so the caller re-raises its own."""
    mine = ValueError("mine")
    async with open_ends(service) as ends:
        with pytest.raises(ValueError, match="mine") as caught:
            async with ends.client.proxy(Service).account():
                raise mine
        assert caught.value is mine
        assert mine.__context__ is None
        assert mine.__cause__ is None
        assert not hasattr(mine, "__notes__")
        assert log[1:] == ["account: RemoteError ValueError mine", "account: finally"]
        [cancel] = ends.up.sent("cancel")
        assert cancel.get("mode", "abort") == "abort"
        assert (cancel["error"]["name"], cancel["error"]["message"]) == ("ValueError", "mine")
        [error] = ends.down.sent("error")
        assert error["same"] is True


async def test_an_errors_own_context_stays(service, autojump_clock):
    cause, context = KeyError("cause"), LookupError("context")
    mine = ValueError("mine")
    async with open_ends(service) as ends:
        with pytest.raises(ValueError, match="mine"):
            async with ends.client.proxy(Service).account():
                try:
                    raise context
                except LookupError:
                    raise mine from cause
        assert mine.__cause__ is cause
        assert mine.__context__ is context
        assert context.__context__ is None


async def test_an_error_is_suppressed(service, log, autojump_clock):
    async with open_ends(service) as ends:
        async with ends.client.proxy(Service).suppressing():
            raise ValueError("mine")
        assert log == ["suppressed RemoteError ValueError mine"]
        assert ends.down.sent("end", "error") == [{"type": "end", "id": 1}]


async def test_a_group_is_thrown_with_its_causes(service, log, autojump_clock):
    group = ExceptionGroup("both", [ValueError("a"), KeyError("b")])
    causes: list[tuple[str, str]] = []

    class Grouped:
        @rpc
        @asynccontextmanager
        async def context(self) -> AsyncIterator[None]:
            try:
                yield
            except RemoteError as error:
                causes.extend((each.name, each.message) for each in error.causes)
                raise

    async with open_ends(Grouped()) as ends:
        with pytest.raises(ExceptionGroup) as caught:
            async with ends.client.proxy(Grouped).context():
                raise group
        assert caught.value is group
        assert causes == [("ValueError", "a"), ("KeyError", "'b'")]


async def test_a_listed_error_arrives_as_itself(service, log, autojump_clock):
    """Both ways: the caller's in the context, and the context's at the caller."""
    mine = Rejected("mine", 1)
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        with pytest.raises(Rejected) as caught:
            async with api.strict():
                raise mine
        assert caught.value is mine
        with pytest.raises(Rejected) as caught:
            async with api.strict(replace=True):
                raise mine
        assert caught.value.args == ("something else", 2)
        assert caught.value.__context__ is mine
        assert log == ["rejected ('mine', 1)"] * 2


async def test_an_rpc_error_is_thrown_by_its_code(service, autojump_clock):
    thrown: list[RpcError] = []

    class Coded:
        @rpc
        @asynccontextmanager
        async def context(self) -> AsyncIterator[None]:
            try:
                yield
            except RpcError as error:
                thrown.append(error)

    async with open_ends(Coded()) as ends:
        async with ends.client.proxy(Coded).context():
            raise PermissionDenied("mine")
        async with ends.client.proxy(Coded).context():
            raise NotFound("no such thing")
    assert [type(each) for each in thrown] == [PermissionDenied, NotFound]
    assert [each.message for each in thrown] == ["mine", "no such thing"]


async def test_another_error_is_raised_over_the_callers_own(service, autojump_clock):
    mine = ValueError("mine")
    async with open_ends(service) as ends:
        with pytest.raises(AlreadyExists, match="another") as caught:
            async with ends.client.proxy(Service).replacing():
                raise mine
        assert caught.value.__context__ is mine
        assert mine.__context__ is None


async def test_an_error_of_the_exit(service, autojump_clock):
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        with pytest.raises(RemoteError, match="no way out") as caught:
            async with api.failing("leave"):
                pass
        assert caught.value.name == "ValueError"
        assert caught.value.__context__ is None
        mine = KeyError("mine")
        with pytest.raises(RemoteError, match="no way out") as caught:
            async with api.failing("leave"):
                raise mine
        assert caught.value.__context__ is mine


async def test_an_error_that_cannot_be_told_is_thrown_all_the_same(service, log, autojump_clock):
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    async with open_ends(service) as ends:
        with pytest.raises(Odd):
            async with ends.client.proxy(Service).account():
                raise Odd
        assert log[1] == "account: RemoteError Odd (its message could not be made)"


async def test_a_generator_that_is_closed_leaves_its_context(service, log, autojump_clock):
    async def numbers(api: Service) -> AsyncIterator[int]:
        async with api.account() as account:
            while True:
                yield await account.add(1)

    async with open_ends(service) as ends:
        generator: Any = numbers(ends.client.proxy(Service))
        assert [await anext(generator), await anext(generator)] == [1, 2]
        await generator.aclose()
        assert log[1:] == ["account: RemoteError GeneratorExit ", "account: finally"]


# --- errors on entering


async def test_an_error_on_entering(service, log, autojump_clock):
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)
        with pytest.raises(RemoteError, match="no entry") as caught:
            async with api.failing("enter"):
                raise AssertionError
        assert caught.value.name == "ValueError"
        assert caught.value.__context__ is None
        with pytest.raises(PermissionDenied, match="no entry"):
            async with api.failing("code"):
                raise AssertionError
        assert ends.up.sent("cancel") == []


async def test_a_listed_error_on_entering(autojump_clock):
    class Closed:
        @rpc(errors=(Rejected,))
        @asynccontextmanager
        async def context(self) -> AsyncIterator[None]:
            raise Rejected("closed", 5)
            yield

    async with open_ends(Closed()) as ends:
        with pytest.raises(Rejected) as caught:
            async with ends.client.proxy(Closed).context():
                raise AssertionError
        assert caught.value.args == ("closed", 5)


class Wrong:
    """Contexts that do not keep what they say."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @rpc
    @asynccontextmanager
    async def unencodable(self) -> AsyncIterator[Any]:
        try:
            yield Plain()
        finally:
            self.log.append("finally")

    @rpc
    @asynccontextmanager
    async def no_methods(self) -> AsyncIterator[Account]:
        try:
            yield Plain()  # type: ignore[misc]
        finally:
            self.log.append("finally")

    @rpc
    @asynccontextmanager
    async def none(self) -> AsyncIterator[Account]:
        try:
            yield None  # type: ignore[misc]
        finally:
            self.log.append("finally")

    @rpc
    @asynccontextmanager
    async def long(self) -> AsyncIterator[str]:
        try:
            yield "x" * 3_000_000
        finally:
            self.log.append("finally")

    @rpc
    @asynccontextmanager
    async def object(self) -> AsyncIterator[Account]:
        try:
            yield Account(self.log)
        except BaseException as error:
            self.log.append(said(error))
            raise
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.log.append("finally")

    @rpc
    @asynccontextmanager
    async def number(self) -> AsyncIterator[int]:
        try:
            yield 5
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            self.log.append("finally")


class WrongContract:
    """What a client of it believes."""

    @rpc
    @asynccontextmanager
    async def object(self) -> AsyncIterator[int]:
        yield 0

    @rpc
    @asynccontextmanager
    async def number(self) -> AsyncIterator[Account]:
        yield Account([])


class OtherContract:
    @rpc
    @asynccontextmanager
    async def number(self) -> AsyncIterator[str]:
        yield ""


@pytest.mark.parametrize(
    ("method", "error", "words"),
    [
        ("unencodable", RemoteError, "of type Plain, cannot be encoded"),
        ("no_methods", RemoteError, "has no @rpc method"),
        ("long", ResourceExhausted, "the other side takes at most"),
    ],
)
async def test_a_value_that_cannot_be_sent(method, error, words, autojump_clock):
    """It is an error of the context, at its yield."""
    service = Wrong()
    async with open_ends(service) as ends:
        with pytest.raises(error, match=words):
            async with getattr(ends.client.proxy(Wrong), method)():
                raise AssertionError
        assert service.log == ["finally"]


@pytest.mark.parametrize(
    ("contract", "method", "words"),
    [
        (WrongContract, "object", "object gave an object where its contract says data"),
        (WrongContract, "number", "number gave data where its contract says an object"),
        (OtherContract, "number", r"the result of OtherContract\.number\(\) does not match str"),
        (Wrong, "none", "none gave data where its contract says an object"),
    ],
)
async def test_a_value_that_the_contract_does_not_say(contract, method, words, autojump_clock):
    """The context is left before the error is raised: what has been entered is not left behind."""
    service = Wrong()
    async with open_ends(service) as ends:
        with pytest.raises(InternalError, match=words) as caught:
            async with getattr(ends.client.proxy(contract), method)():
                raise AssertionError
        assert service.log[-1] == "finally"
        assert not isinstance(caught.value.__context__, trio.EndOfChannel)


async def test_what_is_no_context(service, autojump_clock):
    """R18: it says how it is called."""
    async with open_ends(service) as ends:
        with pytest.raises(RpcError, match="account is a context: use async with"):
            await ends.client.call("account")
        with pytest.raises(RpcError, match="no method 'absent' on the other side"):
            async with ends.client.context("absent"):
                raise AssertionError
        with pytest.raises(RpcError, match="missing 1 required argument: 'value'"):
            async with ends.client.context("data"):
                raise AssertionError
        with pytest.raises(TypeError, match="missing 1 required argument: 'value'"):
            ends.client.proxy(Service).data()  # type: ignore[call-arg]


class Silent:
    """A context manager that is no generator."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    async def __aenter__(self) -> int:
        await trio.lowlevel.checkpoint()
        return 5

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        self.log.append(type(error).__name__)
        return True


class Classes:
    def __init__(self) -> None:
        self.log: list[str] = []

    @rpc
    def silent(self) -> AbstractAsyncContextManager[int]:
        return Silent(self.log)

    @rpc
    def nothing(self) -> AbstractAsyncContextManager[int]:
        return None  # type: ignore[return-value]


async def test_a_context_manager_that_suppresses_everything(autojump_clock):
    service = Classes()
    async with open_ends(service) as ends:
        api = ends.client.proxy(Classes)
        async with api.silent() as value:
            assert value == 5
            raise ValueError
        async with api.silent():
            pass
        with trio.CancelScope() as scope:
            async with api.silent():
                scope.cancel()
        await quiet()
        assert service.log == ["RemoteError", "NoneType", "Cancelled"]


async def test_what_gives_no_context_manager(caplog, autojump_clock):
    async with open_ends(Classes()) as ends:
        with pytest.raises(RemoteError) as caught:
            async with ends.client.proxy(Classes).nothing():
                raise AssertionError
        assert caught.value.name == "TypeError"
