"""The life of a process that serves: it ends in order when it is told to."""

from __future__ import annotations

import functools
import signal
import ssl as ssl_module
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from typing import TypedDict, Unpack

import cattrs
import trio

from trio_streamrpc.dialects.base import Dialect, Native
from trio_streamrpc.limits import Limits
from trio_streamrpc.nurseries import open_companion_nursery
from trio_streamrpc.runtime.failures import LOGGER
from trio_streamrpc.runtime.handshake import Authenticate
from trio_streamrpc.runtime.interceptors import Interceptor
from trio_streamrpc.server import Server, serve

__all__ = ["ServeOptions", "serve_forever"]

#: What asks a process to end. On Windows nobody sends SIGTERM, and Ctrl-Break asks; what ends a
#: process from outside there, TerminateProcess, asks nothing.
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGBREAK") if hasattr(signal, name)]


class ServeOptions(TypedDict, total=False):
    """The options of :func:`serve`, all of them."""

    limits: Limits | None
    ssl_context: ssl_module.SSLContext | None
    converter: cattrs.Converter | None
    mask_errors: bool
    interceptors: Sequence[Interceptor]
    authenticate: Authenticate | None
    allowed_origins: Sequence[str] | None
    dialects: Sequence[Native | Dialect]
    reflection: bool


async def serve_forever(
    service: object,
    url: str,
    *,
    grace: float = 20.0,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve until the process is told to end: ``trio.run(serve_forever, Market(), url)``.

    It is :func:`serve`, whose options it has, and ends in order at SIGTERM (on Windows, where
    nobody sends that, at Ctrl-Break):

    - From the first one on nobody new is accepted, and new calls are refused with
      :exc:`Unavailable`, which says that they are safe to send elsewhere (R27). What runs has
      ``grace`` seconds to finish.
    - What has not finished then, or at a second signal, is stopped, and ends with
      :exc:`Unavailable`, never as if it were complete (R6). Its ``finally`` blocks run, and have
      ``Limits.cleanup`` seconds.
    - Then this returns, so that the process can exit with 0. A further signal, while handlers
      clean up, ends the process at once, as it would without this function.

    The 20 seconds, and the handlers' 5 for cleanup, are over before the 30 that Kubernetes gives
    a process, and longer than the 10 of ``docker stop``.

    Ctrl-C is Trio's: :exc:`KeyboardInterrupt`, without a grace period; ``finally`` blocks run.
    Whoever wants signals handled in another way calls :func:`serve`, which handles none, and
    :meth:`Server.drain`.

    Raises what :func:`serve` raises, :exc:`ValueError` for a ``grace`` below 0, and
    :exc:`RuntimeError` outside of the main thread, which alone can handle signals.
    """
    if not grace >= 0:
        raise ValueError(f"grace must be a number of seconds, 0 or more, not {grace!r}")
    with ExitStack() as listening:
        signals = listening.enter_context(trio.open_signal_receiver(*SIGNALS))
        async with open_companion_nursery() as nursery:
            server = await nursery.start(functools.partial(serve, service, url, **options))
            nursery.start_soon(_obey, signals, server, grace, listening, nursery.cancel_scope)
            task_status.started(server)
            await server.wait_drained()


async def _obey(
    signals: AsyncIterator[int],
    server: Server,
    grace: float,
    listening: ExitStack,
    serving: trio.CancelScope,
) -> None:
    first = await anext(signals)
    LOGGER.info("%s: what runs has %s s to finish", signal.Signals(first).name, grace)
    with trio.move_on_after(grace) as patience:
        async with open_companion_nursery() as nursery:
            nursery.start_soon(_lose_patience, signals, patience)
            await server.drain()
    # The next signal finds what it would have found without all this.
    listening.close()
    serving.cancel()


async def _lose_patience(signals: AsyncIterator[int], patience: trio.CancelScope) -> None:
    await anext(signals)
    patience.cancel()
