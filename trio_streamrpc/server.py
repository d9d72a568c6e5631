"""Serving: the accept loop, and one guarded task for each connection."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Sequence
from urllib.parse import urlsplit

import cattrs
import trio

from trio_streamrpc.admission import Admission
from trio_streamrpc.contract.methods import MethodTable
from trio_streamrpc.contract.payloads import payloads_for
from trio_streamrpc.contract.reflection import with_reflection
from trio_streamrpc.dialects import native
from trio_streamrpc.dialects.base import Dialect, Native, speech
from trio_streamrpc.dialects.choosing import Dialects
from trio_streamrpc.errors import RpcError
from trio_streamrpc.limits import Limits, checked_limits
from trio_streamrpc.listeners import PatientListener
from trio_streamrpc.nurseries import open_background_nursery, open_companion_nursery
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.runtime.failures import LOGGER
from trio_streamrpc.runtime.handshake import Authenticate, check_authenticate
from trio_streamrpc.runtime.interceptors import Interceptor, checked
from trio_streamrpc.runtime.keepalive import Keepalive
from trio_streamrpc.runtime.opening import run_in
from trio_streamrpc.transports.urls import Scheme, origins_for, peer_address, scheme_of

__all__ = ["Server", "Serving", "serve"]

ENCODINGS: tuple[Encoding, ...] = ("msgpack", "json")


class Server:
    """A service that is being served: what ``await nursery.start(serve, …)`` gives."""

    def __init__(
        self,
        table: MethodTable,
        scheme: Scheme,
        url: str,
        limits: Limits,
        converter: cattrs.Converter | None,
        mask_errors: bool,
        interceptors: Sequence[Interceptor],
        authenticate: Authenticate | None = None,
        allowed_origins: Sequence[str] | None = None,
        dialects: Sequence[Native | Dialect] = (native,),
    ) -> None:
        #: Where it is served, with the real port: ``"ws://127.0.0.1:41733"``.
        self.url = url
        self._table = table
        self._scheme = scheme
        self._path = urlsplit(url).path
        self._limits = limits
        self._payloads = {each: payloads_for(each, converter) for each in ENCODINGS}
        self._dialects = Dialects(dialects)
        if self._dialects.native and self._dialects.others and not scheme.negotiates:
            raise ValueError(
                f"{url!r} is a byte stream, on which either native or others are spoken"
            )
        self._mask_errors = mask_errors
        self._interceptors = interceptors
        self._origins = origins_for(url, allowed_origins)
        self._admission = Admission(limits, authenticate)
        self._connections: set[Connection] = set()
        self._keepalive = Keepalive()
        #: Around each client that is being served: cancelled when serving ends.
        self._blocks: set[trio.CancelScope] = set()
        self._dismissed = False
        #: Around the accept loop: cancelled by a drain.
        self._accepting = trio.CancelScope()
        self._draining = False
        self._drained = trio.Event()

    def __repr__(self) -> str:
        return f"<Server at {self.url}>"

    @property
    def connections(self) -> frozenset[Connection]:
        """The connections that are open now; clients that are not let in yet are not among them."""
        return frozenset(self._connections)

    async def drain(self) -> None:
        """Stop serving once what runs has finished; ``serve`` returns then (R27).

        Nobody new is accepted, and new calls are refused with :exc:`Unavailable`, which says that
        they were not run and are safe to send elsewhere (``retry``). Calls and streams that run
        go on to their end, however long they take: put a ``trio.move_on_after`` around this, and
        cancel ``serve`` after it, to bound that.
        """
        self._draining = True
        self._accepting.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._admission.close)
            for connection in self._connections:
                nursery.start_soon(_retire, connection)
        self._drained.set()
        await trio.lowlevel.checkpoint()

    async def wait_drained(self) -> None:
        """Wait until a :meth:`drain` that somebody has begun has come to its end."""
        await self._drained.wait()


class Serving(Server):
    """… and what :func:`serve` does with it."""

    #: What is nobody's failure here, a KeyboardInterrupt for instance.
    interrupt: BaseException | None = None

    async def accept(
        self,
        listeners: list[trio.abc.Listener[trio.abc.Stream]],
        connections: trio.Nursery,
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept clients until a drain, and serve each in a task of that nursery."""
        connections.start_soon(self._keepalive.run, name="streamrpc keepalive")
        with self._accepting:
            await trio.serve_listeners(
                self.handle,
                [PatientListener(each) for each in listeners],
                handler_nursery=connections,
                task_status=task_status,
            )

    def dismiss(self) -> None:
        """Have every client leave that is being served, or will be."""
        self._dismissed = True
        for block in self._blocks:
            block.cancel()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one client. What goes wrong with it ends this connection, and no other."""
        since = trio.current_time()
        address = peer_address(stream)
        full = self._admission.enter(address)
        block = trio.CancelScope()
        self._blocks.add(block)
        if self._dismissed:
            block.cancel()
        try:
            # What a connection needs to take its leave has to outlive a cancellation: nothing is
            # cancelled here but the block, by dismiss(), and the nursery ends after it. A
            # background nursery for each connection would do the same, with one more task.
            with trio.CancelScope(shield=True):
                async with open_companion_nursery() as nursery:
                    with block:
                        if full is None:
                            await self._serve(stream, nursery, since)
                        else:
                            LOGGER.info("a client was refused: %s", full)
                            await self._admission.turn_away(stream, self._scheme.turn_away)
        except RpcError as error:
            # Escaped and shortened: it may hold what the client has sent.
            LOGGER.info("a client was refused: %s", ascii(str(error))[1:-1][:200])
        except Exception:
            LOGGER.exception("a connection failed")
        except BaseException as error:
            self.interrupt = error
            raise
        finally:
            self._blocks.discard(block)
            if full is None:
                self._admission.leave(address)

    async def _serve(self, stream: trio.abc.Stream, nursery: trio.Nursery, since: float) -> None:
        async with self._scheme.accept(
            stream,
            path=self._path,
            limits=self._limits,
            origins=self._origins,
            nursery=nursery,
            subprotocols=self._dialects.subprotocols,
        ) as transport:
            if transport is None:
                return
            dialect = await self._dialects.choose(transport, self._limits, since)
            async with run_in(
                nursery,
                transport,
                "accepting",
                table=self._table,
                payloads=self._payloads[transport.encoding],
                limits=self._limits if dialect is None else dialect.limits(self._limits),
                speak=speech(dialect),
                mask_errors=self._mask_errors,
                interceptors=self._interceptors,
                authenticate=self._admission.authenticate,
                since=since,
                keepalive=self._keepalive,
            ) as connection:
                if self._draining:
                    # It was on its way when the drain began, and has called nothing.
                    return
                self._connections.add(connection)
                try:
                    await connection.wait_closed()
                finally:
                    self._connections.discard(connection)


async def _retire(connection: Connection) -> None:
    await connection.drain()
    await connection.aclose()


async def serve(
    service: object,
    url: str,
    *,
    limits: Limits | None = None,
    interceptors: Sequence[Interceptor] = (),
    authenticate: Authenticate | None = None,
    allowed_origins: Sequence[str] | None = None,
    ssl_context: ssl_module.SSLContext | None = None,
    converter: cattrs.Converter | None = None,
    mask_errors: bool = False,
    dialects: Sequence[Native | Dialect] = (native,),
    reflection: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a service at a URL until cancelled: ``server = await nursery.start(serve, …)``.

    It returns when ``await server.drain()`` has come to its end. When it is cancelled, the handlers
    that run are asked to stop, and have stopped when it returns. ``nursery.start`` passes arguments
    on by position: with options it is ``nursery.start(partial(serve, limits=…), service, url)``.

    - ``service``: an object with ``@rpc`` methods, or a mapping of names to such objects and to
      functions.
    - ``url``: ``ws://host:port/path`` (any path, if it has none), ``wss://…``, ``tcp://host:port``,
      ``tls://host:port`` or ``unix:///path/of/the/socket``. Port 0 takes any that is free;
      ``server.url`` has the real one. The file of a Unix socket has the permissions that the umask
      leaves; it is removed when serving ends, and one that a dead server has left behind is
      replaced.
    - ``limits``: what is accepted from each client, how many clients, and how long is waited;
      ``Limits()`` by default.
    - ``interceptors``: what stands around every call that is served, the first outermost.
    - ``authenticate``: who may come in, see below; by default everybody.
    - ``allowed_origins``: which web pages may connect, see below.
    - ``ssl_context``: an ``ssl.SSLContext`` with the certificate, which ``wss`` and ``tls`` need.
    - ``converter``: a ``cattrs`` converter for types that msgspec does not know.
    - ``mask_errors``: whether unexpected exceptions in handlers are kept from the callers, who get
      :exc:`InternalError` with a reference that the log has beside the traceback. By default they
      are told the exception's class and message, and have :exc:`RemoteError`.
    - ``dialects``: the wires that are spoken, of those in :mod:`trio_streamrpc.dialects`. On a
      WebSocket the subprotocol chooses; for a client without one it is its first message, which is
      waited for until ``limits.handshake_timeout`` where there are several that connect so.
    - ``reflection``: whether the namespace ``streamrpc`` is added, whose method
      ``streamrpc.describe`` tells every client that may call it what the service has: names,
      docstrings and types.

    ``authenticate`` is an async function that is called with the :class:`Handshake` of each client
    before anything of it is run (R25). What it gives is ``current_call().identity`` from then on.
    To refuse the client it raises an :exc:`RpcError`, mostly :exc:`Unauthenticated` or
    :exc:`PermissionDenied`, which ``connect`` raises there with its code and the first 200
    characters of its message, and without its ``data``. For any other exception (a
    :exc:`RemoteError` of a service that it has asked is one), and for False, that is
    :exc:`Unauthenticated` without a word, and it is logged. It has ``limits.handshake_timeout``
    from the client's first byte on, and is cancelled when the client goes away, or the server does.

    ``allowed_origins`` are the web pages that may connect, ``["https://example.com"]``: a browser
    that comes from elsewhere is refused with HTTP status 403. Without it, those of the host that
    the client has asked for, at the same port; over ``wss``, if they are encrypted as well. What is
    no browser sends no ``Origin``, and passes. Any name that leads to this machine is such a host,
    an attacker's too: where browsers can get to a server that has no ``authenticate``, list the
    origins.

    Raises :exc:`TypeError` for what is no service, or has a ``streamrpc`` of its own where
    ``reflection`` adds it, and for other arguments that cannot be; :exc:`ValueError` for what is no
    URL or no origin, and for ``allowed_origins`` where no browser connects (``tcp``, ``tls``,
    ``unix``); and :exc:`OSError` if the address cannot be had.
    """
    limits = checked_limits(limits)
    interceptors = checked(interceptors)
    check_authenticate(authenticate)
    table = MethodTable.of(service)
    if reflection:
        table = with_reflection(table, payloads_for("json", converter))
    scheme = scheme_of(url)
    # What is wrong with the arguments is told before anything listens.
    server = Serving(
        table,
        scheme,
        url,
        limits,
        converter,
        mask_errors,
        interceptors,
        authenticate,
        allowed_origins,
        dialects,
    )
    try:
        # Trio's accept loop has a nursery of its own; what comes out of this one is in no group.
        async with open_background_nursery() as nursery:
            try:
                listeners, server.url = await scheme.listen(url, ssl_context=ssl_context)
            except OSError as error:
                error.add_note(f"listening at {url}")
                raise
            try:
                try:
                    await nursery.start(server.accept, listeners, nursery)
                except BaseException:
                    for each in listeners:
                        await trio.aclose_forcefully(each)
                    raise
                task_status.started(server)
                await server.wait_drained()
                return
            finally:
                server.dismiss()
    except trio.Cancelled:
        # The accept loop loses an interrupt to a cancellation that comes at the same time.
        if server.interrupt is None:
            raise
    assert server.interrupt is not None
    raise server.interrupt
