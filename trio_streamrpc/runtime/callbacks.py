"""Callbacks: the caller's async functions, called by the handler that they were passed to (R20)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from trio_streamrpc.contract.methods import Method

if TYPE_CHECKING:
    from trio_streamrpc.contract.arguments import MethodCodec
    from trio_streamrpc.contract.signatures import Parameter
    from trio_streamrpc.runtime.caller import Caller
    from trio_streamrpc.runtime.objects import Target

__all__ = ["callback_method", "remote_callback"]


def callback_method(codec: MethodCodec, parameter: Parameter) -> Method:
    """How a callback is called that a parameter of that method takes."""
    found = codec.callbacks.get(parameter.name)
    if found is None:
        name = f"{codec.label}(), {parameter.name!r}"
        found = codec.callbacks[parameter.name] = Method.of_callback(parameter, name)
    return found


def remote_callback(
    caller: Caller, target: Target, codec: MethodCodec
) -> Callable[..., Awaitable[Any]]:
    """A callback as its handler sees it: a function that runs on the other side."""

    async def callback(*args: Any, **kwargs: Any) -> Any:
        return await caller.call("", codec, args, kwargs, target=target)

    callback.__name__ = callback.__qualname__ = target.name
    return callback
