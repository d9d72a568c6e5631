"""Remote contexts (R20): entering, calling what they yield, leaving, and all that goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import trio
import trio.testing

from tests.runtime.ends import Cut, open_ends, quiet, sweep
from tests.runtime.peer import open_against
from trio_streamrpc import (
    AlreadyExists,
    CleanupTimeout,
    FlowControlError,
    InternalError,
    Limits,
    NotFound,
    PermissionDenied,
    RemoteError,
    ResourceExhausted,
    RpcError,
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
    async def account(self, name: str = "account", pause: float = 1) -> AsyncIterator[Account]:
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
                await trio.sleep(pause)
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
            assert await account.total(generate(1, 2, 3)) == 6
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
            assert await account.total(generate(1, 2)) == 3
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
    async with open_ends(service, limits=Limits(max_value_bytes=1_000_000)) as ends:
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

    async def __aexit__(self, kind: object, error: object, traceback: object) -> bool:
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


# --- cancelled callers


@pytest.mark.parametrize("how", ["cancel", "interrupt", "group"])
async def test_a_caller_in_a_hurry_does_not_wait(how, service, log, autojump_clock):
    """R8: the context is cancelled, and its finally runs."""
    async with open_ends(service) as ends:
        started = trio.current_time()
        account: Account | None = None
        with trio.CancelScope() as scope:
            try:
                async with ends.client.proxy(Service).account() as account:
                    if how == "cancel":
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
                    if how == "interrupt":
                        raise KeyboardInterrupt
                    async with trio.open_nursery() as nursery:
                        scope.cancel()
                        nursery.start_soon(trio.lowlevel.checkpoint)
                        raise ValueError
            except (KeyboardInterrupt, BaseExceptionGroup):
                pass
        assert trio.current_time() == started
        assert account is not None
        with pytest.raises(NotFound, match="has ended"):
            await account.add(1)
        await trio.sleep(2)
        assert log[1:] == ["account: Cancelled", "account: finally"]
        [cancel] = ends.up.sent("cancel")
        assert (cancel.get("mode", "abort"), cancel.get("error")) == ("abort", None)


async def test_a_caller_that_is_cancelled_while_it_leaves(service, log, autojump_clock):
    """It waits no longer; what has begun as a regular exit goes on as one."""
    async with open_ends(service) as ends:
        started = trio.current_time()
        with trio.move_on_after(0.5):
            async with ends.client.proxy(Service).account():
                pass
        assert trio.current_time() - started == 0.5
        await trio.sleep(2)
        assert log[1:] == ["account: end", "account: finally"]
        assert [each.get("mode", "abort") for each in ends.up.sent("cancel")] == ["close", "abort"]


async def test_a_caller_that_waits_for_a_place_says_nothing(service, log, autojump_clock):
    async with open_ends(service, limits=Limits(max_calls=1)) as ends:
        api = ends.client.proxy(Service)
        async with api.account():
            with trio.move_on_after(1):
                async with api.account("second"):
                    raise AssertionError
        assert len(ends.up.sent("call")) == 1


async def test_a_call_that_was_not_yet_written_is_taken_back(service, log, autojump_clock):
    """R12"""
    async with open_ends(service) as ends:
        ends.up.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.client.call, "failing", "x")
            await quiet()
            with trio.move_on_after(1):
                async with ends.client.proxy(Service).account():
                    raise AssertionError
            nursery.cancel_scope.cancel()
        ends.up.let_go()
        await quiet()
        assert log == []
        assert [each["method"] for each in ends.up.sent("call")] == ["failing"]


async def test_a_deadline_does_not_travel(service, log, autojump_clock):
    """R23: contexts are ended by their caller alone, and one of them may be entered under one."""
    async with open_ends(service) as ends:
        with trio.fail_after(5):
            manager = ends.client.proxy(Service).account()
            account = await manager.__aenter__()
        await trio.sleep(20)
        assert await account.add(1) == 1
        await manager.__aexit__(None, None, None)
        assert log[1:] == ["account: end", "account: finally"]
        assert [each.get("timeout") for each in ends.up.sent("call")] == [None, None]


ENDS: tuple[list[str], ...] = (
    [],
    ["account: begin", "account: Cancelled", "account: finally"],
    ["account: begin", "account: end", "account: finally"],
)


async def test_cancelled_at_every_step_of_entering(service, log, autojump_clock):
    """What has begun there has ended there, and nothing stays behind."""
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            log.clear()
            entered = False
            manager = api.account(pause=0)
            with cut.arm():
                await manager.__aenter__()
                entered = True
            if entered:
                await manager.__aexit__(None, None, None)
            await quiet()
            ends.assert_clean()
            assert log in ENDS
            assert log != ENDS[2] or entered
            return entered

        await sweep(attempt, at_least=4)


@pytest.mark.parametrize("error", [None, ValueError])
async def test_cancelled_at_every_step(error, service, log, autojump_clock):
    """Entering, calling, and leaving: in peace or with an error."""
    async with open_ends(service) as ends:
        api = ends.client.proxy(Service)

        async def attempt(cut: Cut) -> bool:
            log.clear()
            done = False
            with cut.arm():
                try:
                    async with api.account(pause=0) as account:
                        await account.add(1)
                        async with account.savepoint("s"):
                            pass
                        if error is not None:
                            raise error
                except ValueError:
                    pass
                done = True
            await quiet()
            ends.assert_clean()
            outer = [each for each in log if each.startswith("account")]
            inner = [each for each in log if each.startswith("s:")]
            left = ["account: begin", "account: RemoteError ValueError ", "account: finally"]
            assert outer in (*ENDS[:2], left if error else ENDS[2])
            assert inner in ([], ["s: begin", "s: Cancelled"], ["s: begin", "s: end"])
            # The inner one is never left after the outer one.
            assert not inner or log.index(inner[-1]) < log.index(outer[1])
            return done

        await sweep(attempt, at_least=15)


async def test_cancelled_with_uploads_and_callbacks_at_every_step(log, autojump_clock):
    """What goes with the call has ended with it."""

    class Fed:
        @rpc
        @asynccontextmanager
        async def context(
            self, numbers: AsyncIterable[int], report: Callable[[int], Awaitable[None]]
        ) -> AsyncIterator[int]:
            async for number in numbers:
                await report(number)
                yield number
                break

    iterators: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield 5
        finally:
            iterators.append("finally")

    async def report(number: int) -> None:
        await trio.lowlevel.checkpoint()

    async with open_ends(Fed()) as ends:
        api = ends.client.proxy(Fed)

        async def attempt(cut: Cut) -> bool:
            iterators.clear()
            done = False
            with cut.arm():
                async with api.context(numbers(), report) as value:
                    assert value == 5
                done = True
            await quiet()
            ends.assert_clean()
            assert iterators in ([], ["finally"])
            assert not done or iterators
            return done

        await sweep(attempt, at_least=10)


# --- uploads and callbacks of the context's own call


class Feeding:
    """A context that goes on with what came with its call."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @rpc
    @asynccontextmanager
    async def summing(
        self, numbers: AsyncIterable[int], report: Callable[[int], Awaitable[None]]
    ) -> AsyncIterator[str]:
        async def add() -> None:
            total = 0
            async for number in numbers:
                total += number
                await report(total)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(add)
                yield "begun"
                await report(-1)
                nursery.cancel_scope.cancel()
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise
        else:
            self.log.append("end")


async def test_uploads_and_callbacks_last_as_long_as_the_context(autojump_clock):
    service = Feeding()
    reported: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        for number in range(10):
            yield number
            await trio.sleep(1)

    async def report(total: int) -> None:
        reported.append(total)

    async with open_ends(service) as ends:
        async with ends.client.proxy(Feeding).summing(numbers(), report) as value:
            assert value == "begun"
            await trio.sleep(3.5)
            assert reported == [0, 1, 3, 6]
        # The exit could still call back.
        assert reported == [0, 1, 3, 6, -1]
        assert service.log == ["end"]


async def test_an_upload_that_fails_ends_the_context(autojump_clock):
    """R10: with the upload's own error."""
    service = Feeding()
    failure = ValueError("no more")

    async def numbers() -> AsyncIterator[int]:
        yield 1
        await trio.sleep(1)
        raise failure

    async def report(total: int) -> None:
        pass

    async with open_ends(service) as ends:
        api = ends.client.proxy(Feeding)
        with pytest.raises(ValueError, match="no more") as caught:
            async with api.summing(numbers(), report):
                await trio.sleep(2)
        assert caught.value is failure
        # The nursery's, of what its child has met and what it was cancelled with itself.
        assert service.log == ["BaseExceptionGroup"]
        mine = KeyError("mine")
        with pytest.raises(KeyError) as other:
            async with api.summing(numbers(), report):
                await trio.sleep(2)
                raise mine
        assert other.value is mine
        assert mine.__notes__ == ["trio_streamrpc: ValueError: no more"]


async def test_an_upload_that_fails_while_the_context_is_entered(autojump_clock):
    failure = ValueError("nothing")

    class Waiting:
        @rpc
        @asynccontextmanager
        async def context(self, numbers: AsyncIterable[int]) -> AsyncIterator[int]:
            await trio.sleep_forever()
            yield 1

    async def numbers() -> AsyncIterator[int]:
        await trio.sleep(1)
        raise failure
        yield 1

    async with open_ends(Waiting()) as ends:
        with pytest.raises(ValueError, match="nothing") as caught:
            async with ends.client.proxy(Waiting).context(numbers()):
                raise AssertionError
        assert caught.value is failure
        assert failure.__context__ is None


# --- against a peer that is no peer of this library's


CHUNK = {"type": "chunk", "id": 1, "items": [5], "size": 1}
OBJECT = {"type": "chunk", "id": 1, "items": [None], "size": 1, "refs": [[0, "object", 2]]}


async def test_an_end_without_an_item(autojump_clock):
    """R20"""
    async with open_against() as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def enter() -> None:
                with pytest.raises(RuntimeError, match="context ended without yielding"):
                    async with connection.context("context"):
                        raise AssertionError

            nursery.start_soon(enter)
            call = await peer.hears("call")
            assert call["window"]["items"] == 1
            await peer.says({"type": "end", "id": 1})


@pytest.mark.parametrize("error", [None, ValueError("mine")])
@pytest.mark.parametrize("final", [{"type": "end", "id": 1}, {"type": "error", "id": 1,
                                   "error": {"code": "UNKNOWN", "message": "x"}}])  # fmt: skip
async def test_a_second_item(error, final, autojump_clock):
    """R20: FLOW_CONTROL, which the peer is told at once and the caller on leaving."""
    async with open_against() as (connection, peer):
        raised: list[BaseException] = []
        async with trio.open_nursery() as nursery:

            async def enter() -> None:
                try:
                    async with connection.context("context") as value:
                        assert value == 5
                        await trio.sleep(1)
                        if error is not None:
                            raise error
                except (RpcError, ValueError) as caught:
                    raised.append(caught)

            nursery.start_soon(enter)
            await peer.hears("call")
            await peer.says(CHUNK)
            await quiet()
            await peer.says(CHUNK)
            cancel = await peer.hears("cancel")
            assert cancel["error"]["code"] == "FLOW_CONTROL"
            await trio.sleep(2)
            await peer.says(final)
        if error is None:
            assert isinstance(raised[0], FlowControlError)
        else:
            assert raised == [error]
            assert "FlowControlError" in error.__notes__[0]


async def test_two_items_at_once(autojump_clock):
    async with open_against() as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def enter() -> None:
                with pytest.raises(FlowControlError):
                    async with connection.context("context"):
                        raise AssertionError

            nursery.start_soon(enter)
            await peer.hears("call")
            await peer.says({**CHUNK, "items": [5, 6], "size": 2})
            assert (await peer.hears("cancel"))["error"]["code"] == "FLOW_CONTROL"
            await peer.says({"type": "end", "id": 1})


async def test_a_peer_that_does_not_answer(autojump_clock):
    """R7: after cancel_timeout the block raises CleanupTimeout, or has a note of it."""
    mine = ValueError("mine")
    limits = Limits(cancel_timeout=3, close_timeout=1)
    async with open_against(limits=limits) as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                started = trio.current_time()
                with pytest.raises(CleanupTimeout, match="context had not finished 3 s after"):
                    async with connection.context("context"):
                        pass
                assert trio.current_time() - started == 3

            async def leave_with_an_error() -> None:
                with pytest.raises(ValueError, match="mine") as caught:
                    async with connection.context("context"):
                        raise mine
                assert caught.value is mine

            for id, each in ((1, leave), (3, leave_with_an_error)):
                nursery.start_soon(each)
                await peer.hears("call")
                await peer.says({**CHUNK, "id": id})
                await peer.hears("cancel")
        assert "CleanupTimeout: context had not finished 3 s" in mine.__notes__[0]


@pytest.mark.parametrize("error", [None, ValueError("mine")])
async def test_a_context_that_has_let_pass_what_it_was_left_with(error, autojump_clock):
    """R20: a caller without an error hears why the context has not ended with the block."""
    async with open_against() as (connection, peer):
        raised: list[BaseException] = []
        async with trio.open_nursery() as nursery:

            async def enter() -> None:
                try:
                    async with connection.context("context"):
                        if error is not None:
                            raise error
                except (ValueError, RemoteError) as caught:
                    raised.append(caught)

            nursery.start_soon(enter)
            await peer.hears("call")
            await peer.says(CHUNK)
            await peer.hears("cancel")
            same = {"code": "UNKNOWN", "name": "Other", "message": "why"}
            await peer.says({"type": "error", "id": 1, "error": same, "same": True})
        if error is None:
            assert [str(each) for each in raised] == ["Other: why"]
        else:
            assert raised == [error]


async def test_an_object_of_a_peer(autojump_clock):
    async with open_against() as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def enter() -> None:
                async with connection.context("context") as value:
                    assert await value.things.ping(1) == "pong"

            nursery.start_soon(enter)
            await peer.hears("call")
            await peer.says(OBJECT)
            call = await peer.hears("call")
            assert (call["target"], call["method"]) == (2, "things.ping")
            await peer.says({"type": "result", "id": call["id"], "value": "pong"})
            assert (await peer.hears("cancel"))["mode"] == "close"
            await peer.says({"type": "end", "id": 1})


async def test_a_peer_whose_context_ends_while_its_caller_is_told_otherwise(autojump_clock):
    """What it yields is not what the contract says: it is left, whatever comes of that."""
    async with open_against() as (connection, peer):
        async with trio.open_nursery() as nursery:

            async def enter() -> None:
                with pytest.raises(InternalError, match="gave data where its contract says"):
                    async with connection.proxy(WrongContract).number():
                        raise AssertionError

            nursery.start_soon(enter)
            await peer.hears("call")
            await peer.says(CHUNK)
            cancel = await peer.hears("cancel")
            assert cancel["error"]["code"] == "INTERNAL"
            other = {"code": "UNKNOWN", "message": "other"}
            await peer.says({"type": "error", "id": 1, "error": other})
