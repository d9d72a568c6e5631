"""How the application calls the other side: by name, or through a contract's methods."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from trio_streamrpc.contract.methods import Kind, Method, MethodTable
from trio_streamrpc.limits import Window
from trio_streamrpc.runtime.streams import RemoteStream, Stream

if TYPE_CHECKING:
    from trio_streamrpc.contract.payloads import Payloads
    from trio_streamrpc.runtime.callee import Callee
    from trio_streamrpc.runtime.caller import Caller

__all__ = ["ConnectionStatistics", "DynamicProxy", "Face"]

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
    """A connection's numbers at one moment."""

    #: Calls and streams of this side that have not ended.
    calls_open: int
    #: Handlers of this side that have not stopped.
    handlers_running: int


class Face(ABC):
    """What applications use of a connection."""

    caller: Caller
    callee: Callee

    def __init__(self, payloads: Payloads) -> None:
        self.payloads = payloads

    def proxy(self, contract: Callable[..., T]) -> T:
        """The other side's service, with the methods and types of a contract.

        ``contract`` is a class with ``@rpc`` methods: the service's own, or one with empty bodies
        that both sides share; a Protocol or an abstract class will do. Raises :exc:`TypeError` if
        it has none, or if an annotation cannot be resolved.
        """
        return cast(T, Proxy(self, contract_table(contract)))

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method by its dotted name, without a contract: values come as they are.

        Raises :exc:`RpcError`: what the handler raised, or what kept the call from it.
        """
        codec = untyped(method).wire(self.payloads)
        return await self.caller.call(method, codec, args, kwargs)

    def stream(
        self, method: str, /, *args: Any, window: Window | None = None, **kwargs: Any
    ) -> Stream[Any]:
        """The stream of a method by its dotted name, without a contract.

        ``window`` is its capacity; ``Limits.window`` if there is none. A parameter of the method
        that is called so is given by position, or through :attr:`api`.
        """
        if window is not None and not isinstance(window, Window):
            raise TypeError(f"the window of a stream must be a Window, not {window!r}")
        codec = untyped(method).wire(self.payloads)
        return self.caller.stream(method, codec, args, kwargs, window)

    @property
    def api(self) -> DynamicProxy:
        """A proxy without a contract: ``await connection.api.math.add(1, 2)``."""
        return DynamicProxy(self, "")

    def statistics(self) -> ConnectionStatistics:
        """What runs on this connection now."""
        return ConnectionStatistics(
            calls_open=self.caller.open_calls, handlers_running=self.callee.running
        )

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection in order."""


class Proxy:
    """Stands for a service, or one of its namespaces: its methods are attributes."""

    def __init__(self, face: Face, table: MethodTable) -> None:
        self.__dict__["_label"] = table.label
        for name, method in table.attributes.items():
            if not method.is_property:
                self.__dict__[name] = remote_method(face, method)
        for name, namespace in table.namespaces.items():
            self.__dict__[name] = Proxy(face, namespace)
        self.__dict__["_properties"] = {
            name: method for name, method in table.attributes.items() if method.is_property
        }

    def __getattr__(self, name: str) -> Any:
        label, properties = self.__dict__["_label"], self.__dict__["_properties"]
        if name in properties:
            raise AttributeError(
                f"{label}.{name} is a property of a remote object, and an attribute cannot be "
                f"awaited: use await connection.call({properties[name].name!r})"
            )
        raise AttributeError(f"{label} has no @rpc method {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a proxy of {self.__dict__['_label']} holds nothing but its methods")

    def __repr__(self) -> str:
        return f"<proxy of {self.__dict__['_label']}>"


def remote_method(face: Face, method: Method) -> Callable[..., Any]:
    """A function that calls one method of the other side."""
    caller, name, codec = face.caller, method.name, method.wire(face.payloads)
    window = method.options.window

    if method.kind is Kind.UNARY:

        def call(*args: Any, **kwargs: Any) -> Any:
            return caller.call(name, codec, args, kwargs)

        made: Callable[..., Any] = call
    elif method.kind is Kind.SERVER_STREAM:

        def stream(*args: Any, **kwargs: Any) -> RemoteStream[Any]:
            return caller.stream(name, codec, args, kwargs, window)

        made = stream
    else:

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(f"{method.label} is a {method.kind.value}, not yet supported")

        made = refuse
    made.__name__ = made.__qualname__ = method.label or name
    made.__doc__ = method.doc
    return made


class DynamicProxy:
    """A dotted name on its way to being called."""

    def __init__(self, face: Face, name: str) -> None:
        self._face = face
        self._name = name

    def __getattr__(self, name: str) -> DynamicProxy:
        if name.startswith("__"):
            # What Python itself looks up is no method of the other side.
            raise AttributeError(name)
        return DynamicProxy(self._face, f"{self._name}.{name}" if self._name else name)

    def __call__(self, *args: Any, **kwargs: Any) -> DynamicCall:
        return DynamicCall(self._face, self._name, args, kwargs)

    def __repr__(self) -> str:
        return f"<remote {self._name or 'service'}>"


class DynamicCall:
    """A call whose kind shows in how it is used: awaited, iterated, or entered."""

    def __init__(
        self, face: Face, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._face = face
        self._name = name
        self._args = args
        self._kwargs = kwargs
        self._stream: Stream[Any] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._face.call(self._name, *self._args, **self._kwargs).__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._open()

    def _open(self) -> Stream[Any]:
        # All that is given by name is the method's: a dynamic call has no options.
        codec = untyped(self._name).wire(self._face.payloads)
        return self._face.caller.stream(self._name, codec, self._args, self._kwargs)

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

    def __repr__(self) -> str:
        return f"<call of {self._name}: await it, iterate over it, or enter it>"
