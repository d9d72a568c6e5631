"""A connection: the reader, and the end.

The reader demultiplexes frames and never waits for the application (R17); it and the writer
(:mod:`.writer`) outlive a cancellation of the block that owns the connection until the handlers
have stopped and what they had to say is written.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import trio
from msgspec import Raw

from trio_streamrpc.errors import (
    ERRORS_BY_CODE,
    Code,
    ConnectionLost,
    InternalError,
    InvalidArgument,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    RpcError,
)
from trio_streamrpc.limits import Limits
from trio_streamrpc.protocol.endpoint import Endpoint, Event, Side
from trio_streamrpc.protocol.frames import Call, Goaway, Pong, is_absent
from trio_streamrpc.runtime.callee import Callee
from trio_streamrpc.runtime.caller import Caller
from trio_streamrpc.runtime.calls import EMPTY, serves
from trio_streamrpc.runtime.calls import Call as RunningCall
from trio_streamrpc.runtime.failures import LOGGER, is_in_a_hurry
from trio_streamrpc.runtime.greeting import Greeting
from trio_streamrpc.runtime.options import encoded_metadata
from trio_streamrpc.runtime.parking import Parking
from trio_streamrpc.runtime.pings import Pings
from trio_streamrpc.runtime.proxies import Face
from trio_streamrpc.runtime.writer import LAST_WORD, Writer

if TYPE_CHECKING:
    from trio_streamrpc.contract.methods import MethodTable
    from trio_streamrpc.contract.payloads import Payloads
    from trio_streamrpc.runtime.handshake import Authenticate
    from trio_streamrpc.runtime.interceptors import Interceptor
    from trio_streamrpc.transports.base import Transport

__all__ = ["Connection", "Speak"]

#: What makes the endpoint of a connection that speaks another system's words.
Speak = Callable[..., Endpoint]


class Connection(Face):
    """A live connection to the other side, over which either may call the other.

    It is made by :func:`connect`, :func:`open_connection` and :func:`serve`, and lasts as long as
    their block, or the server. Handlers have theirs as ``current_call().connection``.
    """

    def __init__(
        self,
        transport: Transport,
        side: Side,
        nursery: trio.Nursery,
        *,
        table: MethodTable | None,
        payloads: Payloads,
        limits: Limits,
        metadata: Mapping[str, Any] = EMPTY,
        mask_errors: bool = False,
        interceptors: Sequence[Interceptor] = (),
        speak: Speak | None = None,
        authenticate: Authenticate | None = None,
        since: float | None = None,
    ) -> None:
        self.transport = transport
        self.nursery = nursery
        self.limits = limits
        said = Raw(encoded_metadata(metadata, payloads)) if metadata else None
        #: What this side knows and says: in this protocol's words, or in another system's.
        self.endpoint: Endpoint = (
            Endpoint(side, encoding=transport.encoding, limits=limits, metadata=said)
            if speak is None
            else speak(side, limits=limits, metadata=said, table=table)
        )
        super().__init__(payloads)
        # They stand around the calls that a client makes, and those that a server serves.
        calling = interceptors if side == "connecting" else ()
        self.caller = Caller(self, calling)
        serving = interceptors if side == "accepting" else ()
        self.callee = Callee(self, table, payloads, mask=mask_errors, interceptors=serving)
        self.identity: Any = None
        #: Pumps that let others run, though they could go on.
        self.pausing = 0
        self.metadata: Mapping[str, Any] = EMPTY
        self._now = trio.lowlevel.current_clock().current_time
        self._heard = self._now()
        self.greeting = Greeting(self, authenticate, self._heard if since is None else since)
        self._lost: RpcError | None = None
        #: Set once both sides have said hello, or never will (R25).
        self.greeted = trio.Event()
        self._closed = trio.Event()
        self.writer = Writer(self)
        #: Something may have been put into the outbox.
        self.wake_writer: Callable[[], None] = self.writer.wake
        #: Where the reader waits for what was said to be written.
        self._brake = Parking()
        self._shutting = False
        #: Set while the transport says goodbye: it is not to be closed by force meanwhile.
        self._parting = False
        #: Set once a peer that broke the protocol has been told, or could not be.
        self._last_word: trio.Event | None = None
        #: What somebody waits for to come back; None as long as nobody has asked.
        self._pings: Pings | None = None
        on_final = self.caller.on_final
        endpoint_events = (
            self.greeting.on_hello,
            self.callee.on_call,
            on_final,
            on_final,
            self.caller.on_chunk,
            on_final,
            self.callee.on_cancel,
            self.callee.on_grant,
            _ignore,
            _ignore,
            self._on_pong,
            self._on_goaway,
            self.caller.on_overflow,
        )
        self._handlers: tuple[Any, ...] = endpoint_events

    # --- what others ask of it

    @property
    def alive(self) -> bool:
        """Whether the transport still carries what is said."""
        return self._lost is None

    @property
    def remote(self) -> str:
        return self.transport.remote

    @property
    def headers(self) -> Mapping[str, str]:
        return self.transport.headers

    def check_open(self, *, retry: bool = False) -> None:
        """Raise what ended the connection, if something has."""
        error = None
        if self._lost is not None:
            error = self._lost_error()
        elif self._shutting:
            error = _closed_here()
        if error is not None:
            # R27: what is only about to be called has surely not been run.
            error.retry = retry
            raise error

    def _lost_error(self) -> RpcError:
        # A new one each time: an exception that many tasks raise would gather all their tracebacks.
        lost = self._lost
        assert lost is not None
        return copy.copy(lost)

    def metadata_of(self, frame: Call) -> Mapping[str, Any]:
        """What a call was sent with, over what its connection was opened with."""
        if is_absent(frame.metadata):
            return self.metadata
        return MappingProxyType({**self.metadata, **self.mapping(frame.metadata)})

    def mapping(self, raw: Raw) -> dict[str, Any]:
        """Metadata as it travels, decoded. Raises an :exc:`RpcError` for what is none."""
        value: dict[str, Any] = self.payloads.decoder(dict[str, Any])(raw)
        return value

    async def wait_closed(self) -> None:
        await self._closed.wait()

    async def ping(self) -> float:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.check_open()
        if not self.endpoint.pings:
            await trio.lowlevel.checkpoint()
            raise InvalidArgument("this wire carries no pings")
        if self._pings is None:
            self._pings = Pings(self)
        return await self._pings.ask()

    async def drain(self) -> None:
        if self._lost is None:
            self.endpoint.drain()
            self.wake_writer()
        await trio.lowlevel.checkpoint()
        await self.callee.wait_idle(arriving=True)
        await self.flush()

    async def aclose(self) -> None:
        if serves(self) and self.alive:
            self.nursery.start_soon(self._close)
            await self.wait_closed()
            return
        await self._close()

    async def _close(self) -> None:
        try:
            await self._shut_down()
        finally:
            self.lose(_closed_here())
            await trio.aclose_forcefully(self.transport)

    # --- the tasks

    def start(self) -> None:
        """Start the connection's tasks."""
        self.callee.start()
        self.act_on(self.endpoint.begin())
        self.nursery.start_soon(self._read, name="streamrpc reader")
        self.nursery.start_soon(self.writer.run, name="streamrpc writer")

    def break_off(self, error: RpcError) -> None:
        """End the connection with that as the last word, since the other side is not wanted."""
        self.endpoint.fail(error)
        self._fail(error)

    async def _read(self) -> None:
        endpoint, transport = self.endpoint, self.transport
        limit = self.limits.max_waiting_control_bytes
        try:
            await self.greeting.take_in()
            while True:
                self.take_in(await transport.receive())
                if endpoint.outbox:
                    self.wake_writer()
                    # R24: who asks and does not read is not listened to any more.
                    while endpoint.outbox.control_bytes > limit:
                        await self._brake.park()
                # Where there is no credit, the transport's own backpressure holds the other side.
                while endpoint.stuck:
                    await self._brake.park()
        except RemoteProtocolError as error:
            if not endpoint.failed:
                endpoint.fail(error)
            self._fail(error)
        except ConnectionLost as error:
            self.lose(error)
        except Exception as error:
            # A fault of this library, or of a transport: this connection's end, and no other's.
            LOGGER.exception("the connection with %s failed", self.remote)
            self.lose(InternalError(f"the connection failed: {type(error).__name__}"))
        except BaseException:
            # The nursery was cancelled by what a handler could not handle (KeyboardInterrupt). The
            # other handlers are shielded: it is from here that they hear of it.
            self.lose(_closed_here())
            raise

    def take_in(self, message: bytes | str) -> None:
        """Act on one message; nothing of it is kept until the next, which may be far off."""
        endpoint = self.endpoint
        self._heard = now = self._now()
        self.act_on(endpoint.receive(message, now))
        if endpoint.outbox.granted or endpoint.departed:
            self.caller.collect()
        self.callee.check_idle()

    def act_on(self, events: Iterable[Event]) -> None:
        """Hand what has come to whoever has to act on it."""
        handlers = self._handlers
        for event in events:
            handlers[event.kind](event)

    def on_answered(self) -> None:
        """What the writer has taken is all that there will be of some calls: they have ended."""
        answered, self.endpoint.answered = self.endpoint.answered, []
        self.act_on(answered)

    def on_taken(self) -> None:
        """Something was taken of a stream, or it is left: the reader may go on."""
        self._brake.unpark()

    def let_in(self) -> None:
        """Say hello to the side that connects, and act on what it has said early (R25)."""
        events = self.endpoint.accept()
        self.greeted.set()
        self.act_on(events)
        self.caller.collect()
        self.callee.check_idle()

    def on_written(self) -> None:
        """The writer has written a message: others may go on."""
        if self.endpoint.departed or self.endpoint.outbox.granted:
            self.caller.collect()
        self._brake.unpark()

    async def flush(self) -> None:
        """Wait until all that waits to be written is with the transport."""
        if self._lost is None:
            await self.writer.flush()

    @property
    def last_heard(self) -> float:
        """When something last came in, on Trio's clock."""
        return max(self._heard, self.transport.last_heard)

    # --- events of the connection itself

    def _on_pong(self, frame: Pong) -> None:
        if self._pings is not None:
            self._pings.on_pong(frame)

    def _on_goaway(self, frame: Goaway) -> None:
        if frame.code is None:
            self.caller.on_drain()
            return
        # The other side says that this one broke the protocol, or that it is not welcome.
        try:
            kind = ERRORS_BY_CODE[Code(frame.code)]
        except ValueError:
            kind = ERRORS_BY_CODE[Code.UNKNOWN]
        if kind is RemoteProtocolError:
            kind = LocalProtocolError
        message = frame.message[:200]
        if self.greeted.is_set() or kind is LocalProtocolError:
            message = f"the other side closed the connection: {message}"
        self.lose(kind(message))

    # --- the end

    def _fail(self, error: RpcError) -> None:
        """The other side broke the protocol, or is refused: it is told, and that is all (R27)."""
        if not self._end(error):
            return
        self.transport.close_code = error.close_code if isinstance(error, ProtocolError) else 1008
        self.transport.close_reason = error.message[:100]
        self._last_word = trio.Event()
        self.nursery.start_soon(self._say_last_word, self._last_word)

    def lose(self, error: RpcError) -> None:
        """The transport is of no use any more."""
        if self._parting:
            # What its end looks like from in here says nothing: it was closed in order.
            self._end(_closed_here())
        elif self._end(error):
            self.nursery.start_soon(trio.aclose_forcefully, self.transport)

    def _end(self, error: RpcError) -> bool:
        """Tell everybody who waits; False if that was done already."""
        if self._lost is not None:
            return False
        self._lost = error
        self.endpoint.close()
        self.caller.lose(self._lost_error)
        if self._pings is not None:
            self._pings.lose()
        self.callee.ask_all()
        self.callee.check_idle()
        self.greeting.end()
        self.greeted.set()
        self._closed.set()
        self.writer.release()
        return True

    async def _say_last_word(self, said: trio.Event) -> None:
        try:
            with trio.move_on_after(LAST_WORD):
                self.wake_writer()
                while not (self.writer.idle or self.writer.broken):
                    await self.writer.next_flush()
                await self.transport.aclose()
            await trio.aclose_forcefully(self.transport)
        finally:
            said.set()

    async def _shut_down(self) -> None:
        """The orderly end: nothing new, everything that runs is asked to stop, the rest is said."""
        self._shutting = True
        if self._lost is None:
            self.endpoint.drain()
            self.caller.abort_all()
            self.callee.ask_all()
            self.wake_writer()
            with trio.move_on_after(self.limits.close_timeout):
                await self.callee.wait_idle()
                await self.caller.wait_idle()
                await self.flush()
                await self._part()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _part(self) -> None:
        """Close the transport as it closes itself, which may take the other side's part in it."""
        self._parting = True
        await self.transport.aclose()

    async def finish(self, error: BaseException | None) -> None:
        """The end of the block that owns the connection: afterwards nothing of it runs here.

        ``error`` is what the block ends with.
        """
        try:
            if error is None or not is_in_a_hurry(error):
                await self._shut_down()
        except trio.Cancelled:
            # That the goodbye was cut short matters less than why the block has failed.
            if error is None:
                raise
        finally:
            with trio.CancelScope(shield=True):
                await self._finish_by_force()

    async def _finish_by_force(self) -> None:
        self._shutting = True
        if self._lost is None:
            # R27: while handlers clean up, calls still come; they are safe to send elsewhere.
            self.endpoint.drain()
            self.wake_writer()
        self.callee.ask_all()
        if self.callee.running:
            # Their last words are worth a moment: a stream that is cut says so (R6).
            with trio.move_on_after(self.callee.budget()):
                await self.callee.wait_idle()
            with trio.move_on_after(LAST_WORD):
                await self.flush()
                if self._lost is None:
                    await self._part()
        if self._last_word is not None:
            await self._last_word.wait()
        # The transport goes before the nursery waits for what still runs.
        self.lose(_closed_here())
        await trio.aclose_forcefully(self.transport)
        self.callee.report_leftovers()


# Calls are known before connections are, and ``help(Call)`` resolves what its annotations say.
RunningCall.__annotations__["connection"] = Connection


def _closed_here() -> ConnectionLost:
    return ConnectionLost("the connection was closed here")


def _ignore(frame: object) -> None:
    """A frame that has done all that it does."""
