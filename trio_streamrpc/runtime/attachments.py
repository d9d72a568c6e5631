"""What goes with one call besides data: its uploads and its callbacks (R19, R20).

They run in a nursery of the caller's own task, which is open for as long as the call lasts: their
errors and their context are the caller's, and nothing of them is left when the call has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import trio

from trio_streamrpc.contract.method import callback_method
from trio_streamrpc.contract.signatures import Role
from trio_streamrpc.errors import RpcError
from trio_streamrpc.nurseries import open_companion_nursery
from trio_streamrpc.runtime.objects import Export, Root
from trio_streamrpc.runtime.uploads import Upload

if TYPE_CHECKING:
    from trio_streamrpc.contract.arguments import MethodCodec, Reference
    from trio_streamrpc.protocol.exchanges import Exchange
    from trio_streamrpc.runtime.connection import Connection

__all__ = ["Attachments"]


class Attachments:
    """The uploads and callbacks of one call; entered in the caller's task, around the call."""

    def __init__(
        self,
        connection: Connection,
        codec: MethodCodec,
        references: Sequence[Reference],
        nursery: trio.Nursery | None = None,
    ) -> None:
        self._connection = connection
        self._codec = codec
        self._references = references
        self._uploads: list[Upload] = []
        self._exports: list[Export] = []
        self._running = 0
        self._idle: trio.Event | None = None
        self._id = 0
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        #: Where they run: one that is given is closed by who has opened it.
        self._nursery = nursery
        #: What an upload's iterator raised: what the call ends with (R10).
        self.error: BaseException | None = None
        #: Whether it came out of the call already.
        self.told = False

    @property
    def refs(self) -> list[tuple[int | str, Literal["stream", "object"]]]:
        """The places in the arguments, and what stands there."""
        return [
            (place, "stream" if parameter.role is Role.UPLOAD else "object")
            for place, parameter, _ in self._references
        ]

    @property
    def uploads(self) -> int:
        """How many of them are uploads."""
        return sum(parameter.role is Role.UPLOAD for _, parameter, _ in self._references)

    # --- the caller's block

    async def __aenter__(self) -> Self:
        if self._nursery is None:
            self._manager = open_companion_nursery()
            self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Nothing is exported any more before the nursery closes that its calls would run in.
        self.end()
        try:
            if self._manager is not None:
                await self._manager.__aexit__(kind, error, traceback)
        finally:
            # They refer to this, and may hold much.
            self._uploads, self._exports, self._references = [], [], ()
        if self.error is None or self.told or self.error is error:
            return
        if error is None or isinstance(error, trio.Cancelled):
            raise self.error
        # The block's own exception is what its user has to see first.
        error.add_note(f"trio_streamrpc: {type(self.error).__name__}: {self.error}")

    def check(self, failure: BaseException | None) -> None:
        """Raise what an upload's iterator raised, if that was not told already (R10).

        ``failure`` is what the other side has ended the call with; it is noted on it.
        """
        if self.error is None or self.told:
            return
        self.told = True
        if failure is not None:
            self.error.add_note(f"trio_streamrpc: {type(failure).__name__}: {failure}")
        raise self.error

    def start(self, exchange: Exchange, root: Root) -> None:
        """The call is about to be sent: its uploads start, and its callbacks can be called."""
        nursery = self._nursery
        assert nursery is not None
        self._id = exchange.id
        caller, callee = self._connection.caller, self._connection.callee
        context: Context | None = None
        uploads, objects = iter(exchange.uploads), iter(exchange.objects)
        for _, parameter, value in self._references:
            name = f"{self._codec.label}(), {parameter.name!r}"
            if parameter.role is Role.UPLOAD:
                upload = Upload(
                    self._connection,
                    next(uploads).id,
                    value,
                    self._codec.item_encoder(parameter),
                    name,
                    self._upload_failed,
                    # R26: what it calls waits for the objects of its own call, and of no other.
                    exchange if exchange.root is exchange else None,
                )
                self._uploads.append(upload)
                caller.uploads[upload.id] = upload
                self._running += 1
                nursery.start_soon(self._run, upload, name=f"upload of {name}")
                continue
            context = context or copy_context()
            method = callback_method(self._codec, parameter).bind(value)
            export = Export(
                next(objects),
                root,
                name,
                {"": method}.get,
                nursery=nursery,
                context=context,
                is_callback=True,
                in_order=not self._connection.endpoint.answers_callbacks,
            )
            self._exports.append(export)
            callee.exports[export.id] = export

    async def _run(self, upload: Upload) -> None:
        try:
            await upload.run()
        finally:
            self._running -= 1
            if self._idle is not None and not self._running:
                self._idle.set()

    def _upload_failed(self, error: BaseException) -> None:
        if self.error is not None:
            self.error.add_note(f"trio_streamrpc: another upload: {type(error).__name__}: {error}")
            return
        if isinstance(error, RpcError):
            # That another call was not run says nothing of this one.
            error.retry = False
        self.error = error
        # At once: the handler is cancelled, and does not fail for want of items.
        self._connection.caller.abandon(self._id)
        assert self._nursery is not None
        self._nursery.start_soon(self._connection.caller.give_up, self._id)

    # --- the end of the call

    async def settle(self) -> None:
        """Wait until the callbacks have run that were called and are not answered.

        Who has called them could not wait for them, so the call may have ended before they have.
        """
        for export in self._exports:
            if export.in_order:
                await export.wait_idle()

    def end(self) -> None:
        """The call has ended: nobody can call back, and nothing more is uploaded."""
        if self._id:
            self._connection.endpoint.end_objects(self._id)
        for export in self._exports:
            self._connection.callee.exports.pop(export.id, None)
        for upload in self._uploads:
            upload.ask(cut=True)

    async def wait_uploads(self) -> None:
        """Wait until every iterator is closed, its ``finally`` included (R10)."""
        if self._running:
            self._idle = trio.Event()
            await self._idle.wait()
