"""How the application calls the other side: by name, or through a contract's methods."""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

from trio_streamrpc.contract.hints import without_none
from trio_streamrpc.contract.method import Method
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.signatures import Kind
from trio_streamrpc.limits import Window
from trio_streamrpc.runtime.contexts import MakeProxy
from trio_streamrpc.runtime.objects import Target
from trio_streamrpc.runtime.options import NO_OPTIONS, Options
from trio_streamrpc.runtime.remote import RemoteMethod
from trio_streamrpc.runtime.streams import Stream

if TYPE_CHECKING:
    from trio_streamrpc.contract.payloads import Payloads
    from trio_streamrpc.runtime.callee import Callee
    from trio_streamrpc.runtime.caller import Caller

__all__ = ["ConnectionStatistics", "DynamicProxy", "Face", "with_options"]

T = TypeVar("T")


@functools.cache
def contract_table(contract: Any) -> MethodTable:
    """The methods of a contract, read once."""
    return MethodTable.of_contract(contract)


@functools.lru_cache(maxsize=256)
def untyped(name: str) -> Method:
    """A method without a contract: values come as they are."""
    if not isinstance(name, str):
        raise TypeError(f"a method's name is a string, not {name!r}")
    return Method.untyped(name)


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """A connection's numbers at one moment: what :meth:`Connection.statistics` gives."""

    #: Calls and streams of this side that have not ended.
    calls_open: int
    #: Handlers of this side that have not stopped.
    handlers_running: int


class Face(ABC):
    """What applications use of a connection: what is documented here, and nothing else of it."""

    caller: Caller
    callee: Callee
    #: Who the other side is: what ``authenticate`` gave; None if nobody has asked.
    identity: Any
    #: What the other side's hello brought along (``connect(…, metadata=…)``); empty by default.
    metadata: Mapping[str, Any]
    #: Where its handlers run: what is started here is cancelled when the connection ends, and an
    #: exception that comes out of it ends the connection.
    nursery: trio.Nursery

    def __init__(self, payloads: Payloads) -> None:
        self.payloads = payloads

    @property
    @abstractmethod
    def remote(self) -> str:
        """The other end, for people: ``"127.0.0.1:41733"``."""

    @property
    @abstractmethod
    def headers(self) -> Mapping[str, str]:
        """The headers of a WebSocket's handshake, names in lower case; elsewhere empty."""

    def proxy(self, contract: Callable[..., T]) -> T:
        """The other side's service, with the methods and types of a contract.

        ``contract`` is a class with ``@rpc`` methods: the service's own, or one with empty bodies
        that both sides share; a Protocol or an abstract class will do. Nothing is sent: whether
        the other side has such methods shows when they are called.

        Raises :exc:`TypeError` if it has no ``@rpc`` method, or if an annotation cannot be
        resolved.
        """
        return cast(T, Proxy(self, contract_table(contract)))

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method by its dotted name, without a contract: values come as they are.

        Arguments may be what any call takes: data, async iterables, async functions.

        Raises :exc:`RpcError`: what the handler raised (as :exc:`RemoteError` if that chose no
        code), or what kept the call from it: :exc:`Unimplemented` where there is no such method,
        :exc:`InvalidArgument` for arguments that do not fit it, :exc:`ConnectionLost`. A deadline
        of the caller's own that passes is Trio's matter, as ever.
        """
        return await RemoteMethod(self.caller, untyped(method)).call(args, kwargs)

    def stream(
        self, method: str, /, *args: Any, window: Window | None = None, **kwargs: Any
    ) -> Stream[Any]:
        """The stream of a method by its dotted name, without a contract.

        Nothing is sent before it is entered, or its first item asked for. ``window`` is its
        capacity, which stays as it is; without one it starts at ``Limits.window`` and grows where
        it has to. A parameter of the method that is called ``window`` is given by position, or
        through :attr:`api`.

        What it raises, its items raise, as :meth:`call` does. Raises :exc:`TypeError` for a
        ``window`` that is none.
        """
        options = NO_OPTIONS if window is None else Options(window=window)
        return RemoteMethod(self.caller, untyped(method), options).stream(args, kwargs)

    def context(
        self, method: str, /, *args: Any, **kwargs: Any
    ) -> AbstractAsyncContextManager[Any]:
        """A remote context by its dotted name, without a contract, for ``async with``.

        If it yields an object, that is a proxy like :attr:`api`: ``await tx.debit("alice", 5)``.
        Entering and leaving it raise as :meth:`call` does; leaving also :exc:`CleanupTimeout`, if
        the other side has not finished within ``Limits.cancel_timeout``.
        """
        known = untyped(method)
        make_proxy = proxy_maker(self, known, NO_OPTIONS)
        return RemoteMethod(self.caller, known).context(args, kwargs, make_proxy)

    async def get(self, name: str, /) -> Any:
        """The value of a property of the other side, by its dotted name: ``"settings.theme"``.

        Raises :exc:`RpcError` as :meth:`call` does.
        """
        return await RemoteMethod(self.caller, untyped(name)).access("get")

    async def set(self, name: str, value: Any, /) -> None:
        """Give a property of the other side another value.

        Raises :exc:`RpcError` as :meth:`call` does; :exc:`InvalidArgument` if it has no setter.
        """
        await RemoteMethod(self.caller, untyped(name)).access("set", value)

    @property
    def api(self) -> DynamicProxy:
        """A proxy without a contract: ``await connection.api.math.add(1, 2)``.

        What a name's call is used for says which kind it is: it is awaited, iterated over, or
        entered as a stream with ``async with``. For a remote context there is :meth:`context`.
        """
        return DynamicProxy(self, "")

    def statistics(self) -> ConnectionStatistics:
        """What runs on this connection now."""
        return ConnectionStatistics(
            calls_open=self.caller.open_calls, handlers_running=self.callee.running
        )

    @abstractmethod
    async def ping(self) -> float:
        """Ask whether the other side is there, and wait until it says so (R24).

        Gives how long that took, in seconds: there and back, with what waited to be written before
        it, and without any handler or interceptor. There is no limit to it but the connection's
        own: put a ``trio.fail_after`` around it.

        Raises :exc:`ConnectionLost`, or what else has ended the connection, and
        :exc:`InvalidArgument` on another system's wire, which has none.
        """

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait until the transport is gone, for whatever reason; raises nothing."""

    @abstractmethod
    async def drain(self) -> None:
        """Take no more calls from the other side, and wait until those that run have ended (R27).

        New ones are refused with :exc:`Unavailable`, and are safe to send elsewhere. This side
        may go on calling. It takes as long as those calls do: put a ``trio.move_on_after`` around
        it to bound that.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection in order: both sides' calls are ended, and their cleanup has run.

        It takes at most ``Limits.close_timeout``, then the transport is closed regardless. If this
        is cancelled, the transport is closed at once. A handler of the connection is among what is
        to be ended: it is cancelled here, and the close goes on without it.
        """


class Proxy:
    """Stands for a service, one of its namespaces, or a remote object: methods are attributes."""

    def __init__(
        self,
        face: Face,
        table: MethodTable,
        options: Options = NO_OPTIONS,
        target: Target | None = None,
    ) -> None:
        own = self.__dict__
        own["_made_of"] = (face, table, options, target)
        for name, method in table.attributes.items():
            if not method.is_property:
                own[name] = remote_method(face, method, options, target)
        for name, namespace in table.namespaces.items():
            own[name] = Proxy(face, namespace, options, target)

    def __getattr__(self, name: str) -> Any:
        _, table, _, target = self.__dict__["_made_of"]
        method = table.attributes.get(name)
        if method is None:
            raise AttributeError(f"{table.label} has no @rpc method {name!r}")
        how = f": use await connection.call({method.name!r})" if target is None else ""
        raise AttributeError(
            f"{table.label}.{name} is a property of a remote object, and an attribute cannot be "
            f"awaited{how}"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        table = self.__dict__["_made_of"][1]
        raise AttributeError(f"a proxy of {table.label} holds nothing but its methods")

    def __repr__(self) -> str:
        return f"<proxy of {self.__dict__['_made_of'][1].label}>"


def with_options(
    api: T,
    *,
    metadata: Mapping[str, Any] | None = None,
    window: Window | None = None,
    priority: int | None = None,
) -> T:
    """The same proxy, with options for the calls that are made through it.

    ``metadata`` is added to what its calls are sent with, and is in ``current_call().metadata``
    there, up to 16 KiB in all; ``window`` is the capacity of its streams, which stays as it is;
    ``priority``, from -128 to 127 and 0 by default, says what is written first where much waits, on
    both sides (R12). The proxy that was given is left as it is. There is no timeout: use
    ``trio.fail_after``; the deadline travels by itself.

    Raises :exc:`TypeError` for what is no proxy, and :exc:`TypeError` or :exc:`ValueError` for what
    cannot be an option.
    """
    made: Any
    if isinstance(api, Proxy):
        face, table, options, target = api.__dict__["_made_of"]
        made = Proxy(face, table, options.over(metadata, window, priority), target)
    elif isinstance(api, DynamicProxy):
        made = api._with(metadata, window, priority)  # noqa: SLF001  # of this module
    else:
        raise TypeError(f"with_options() takes a proxy, not {api!r}")
    return cast(T, made)


def remote_method(
    face: Face, method: Method, options: Options, target: Target | None
) -> Callable[..., Any]:
    """A function that calls one method of the other side."""
    if method.kind is Kind.SERVER_STREAM:
        options = options.or_window(method.options.window)
    remote = RemoteMethod(face.caller, method, options, target)
    make_proxy = proxy_maker(face, method, options)
    name = method.label or method.name
    made: Callable[..., Any]
    if method.kind is Kind.UNARY:

        def call(*args: Any, **kwargs: Any) -> Any:
            coroutine: Any = remote.call(args, kwargs)
            # What Python says of an await that was forgotten.
            coroutine.__qualname__ = name
            return coroutine

        made = call
    elif method.kind is Kind.SERVER_STREAM:

        def stream(*args: Any, **kwargs: Any) -> Stream[Any]:
            return remote.stream(args, kwargs)

        made = stream
    elif method.kind is Kind.CONTEXT:

        def context(*args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Any]:
            return remote.context(args, kwargs, make_proxy)

        made = context
    else:

        async def task(
            *args: Any,
            task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
            **kwargs: Any,
        ) -> None:
            await remote.task(args, kwargs, make_proxy, task_status)

        made = task
    made.__name__ = made.__qualname__ = name
    made.__doc__ = method.doc
    return made


def proxy_maker(face: Face, method: Method, options: Options) -> MakeProxy | None:
    """What makes the proxy of an object that a context or a task gives; None if it gives data."""
    if method.result_type is Any:
        return lambda target: DynamicProxy(face, "", options, target)
    if not method.yields_object:
        return None
    table = contract_table(without_none(method.result_type))
    return lambda target: Proxy(face, table, options, target)


class DynamicProxy:
    """A dotted name on its way to being called."""

    def __init__(
        self,
        face: Face,
        name: str,
        options: Options = NO_OPTIONS,
        target: Target | None = None,
    ) -> None:
        self._face = face
        self._name = name
        self._options = options
        self._target = target

    def __getattr__(self, name: str) -> DynamicProxy:
        if name.startswith("__"):
            # What Python itself looks up is no method of the other side.
            raise AttributeError(name)
        full = f"{self._name}.{name}" if self._name else name
        return DynamicProxy(self._face, full, self._options, self._target)

    def _with(
        self, metadata: Mapping[str, Any] | None, window: Window | None, priority: int | None
    ) -> DynamicProxy:
        options = self._options.over(metadata, window, priority)
        return DynamicProxy(self._face, self._name, options, self._target)

    def __call__(self, *args: Any, **kwargs: Any) -> DynamicCall:
        method = untyped(self._name)
        remote = RemoteMethod(self._face.caller, method, self._options, self._target)
        return DynamicCall(remote, args, kwargs)

    def __repr__(self) -> str:
        return f"<remote {self._name or 'service'}>"


class DynamicCall:
    """A call whose kind shows in how it is used: awaited, iterated, or entered."""

    _used = False

    def __init__(self, remote: RemoteMethod, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._remote = remote
        self._args = args
        self._kwargs = kwargs
        self._stream: Stream[Any] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        self._used = True
        return self._remote.call(self._args, self._kwargs).__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._open()

    def _open(self) -> Stream[Any]:
        self._used = True
        return self._remote.stream(self._args, self._kwargs)

    async def __aenter__(self) -> Stream[Any]:
        self._stream = self._open()
        return await self._stream.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._stream is not None
        await self._stream.__aexit__(kind, error, traceback)

    def __del__(self) -> None:
        if not self._used:
            what = f"the call of {self._remote.name} was never awaited, iterated over or entered"
            warnings.warn(what, RuntimeWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<call of {self._remote.name}: await it, iterate over it, or enter it>"
