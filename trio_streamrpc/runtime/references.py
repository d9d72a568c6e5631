"""The references of a call on the side that serves it: what its handler finds in their places.

A stream is an upload of the caller's (R19), an object one of its callbacks (R20). They end with
the call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from trio_streamrpc.contract.method import Method, callback_method
from trio_streamrpc.contract.signatures import Role
from trio_streamrpc.errors import CallCancelled, InvalidArgument
from trio_streamrpc.runtime.failures import error_from
from trio_streamrpc.runtime.objects import Target
from trio_streamrpc.runtime.receivers import Receiver
from trio_streamrpc.runtime.remote import RemoteMethod
from trio_streamrpc.runtime.streams import RemoteStream

if TYPE_CHECKING:
    from trio_streamrpc.contract.signatures import Parameter
    from trio_streamrpc.protocol.frames import Error, Ref
    from trio_streamrpc.runtime.caller import Caller
    from trio_streamrpc.runtime.handlers import Handler

__all__ = ["References"]


class References:
    """What came with one call besides data."""

    def __init__(self, handler: Handler, refs: Sequence[Ref]) -> None:
        self._name = handler.name
        self._root = handler.root
        self._codec = handler.codec
        self._caller = handler.connection.caller
        self._refs = refs
        # Items may have come in the same message as the call.
        self._receivers = {
            each.id: self._caller.receive_upload(each) for each in handler.exchange.uploads
        }
        self._targets: list[Target] = []

    def placeholders(self) -> dict[int | str, Callable[[Parameter], Any]]:
        """What makes each argument that is a reference, for the parameter that takes it.

        Raises :exc:`InvalidArgument` if there are two for one place.
        """
        found: dict[int | str, Callable[[Parameter], Any]] = {}
        for ref in self._refs:
            if ref.place in found:
                raise InvalidArgument(f"{self._name}() has two references at {ref.place!r}")
            found[ref.place] = partial(self._make, ref)
        return found

    def _make(self, ref: Ref, parameter: Parameter) -> Any:
        wanted = {Role.UPLOAD: "stream", Role.CALLBACK: "object"}.get(parameter.role, ref.type)
        if ref.type != wanted:
            raise InvalidArgument(
                f"{self._name}() takes a {'stream' if wanted == 'stream' else 'callback'} for "
                f"{parameter.name!r}, and was given {ref.type!r}"
            )
        if ref.type == "stream":
            return self._stream(self._receivers[ref.id], parameter)
        method = callback_method(self._codec, parameter)
        target = Target(ref.id, self._root, f"{self._name}(), {parameter.name!r}")
        self._targets.append(target)
        return remote_callback(self._caller, method, target)

    def _stream(self, receiver: Receiver, parameter: Parameter) -> RemoteStream[Any]:
        def rebuild(frame: Error) -> BaseException:
            return error_from(frame.error, decode=self._caller.payloads.decoder())

        return RemoteStream(
            self._caller,
            receiver,
            self._codec.item_decoder(parameter),
            rebuild,
            f"{self._name}(), {parameter.name!r}",
        )

    def end(self) -> None:
        """The call has ended, and they with it, whoever still holds them."""
        for receiver in self._receivers.values():
            receiver.stop(CallCancelled("the call that this stream came with has ended"))
        for target in self._targets:
            target.ended = True


def remote_callback(
    caller: Caller, method: Method, target: Target
) -> Callable[..., Awaitable[Any]]:
    """A callback as its handler sees it: a function that runs on the other side."""
    remote = RemoteMethod(caller, method, target=target)

    async def callback(*args: Any, **kwargs: Any) -> Any:
        if not caller.answers_callbacks:
            await remote.tell(args, kwargs)
            return None
        return await remote.call(args, kwargs)

    callback.__name__ = callback.__qualname__ = target.name
    return callback
