"""A connection to a service that is watched: what is held against it is raised at the end."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import cattrs
import trio

from trio_streamrpc.client import open_connection
from trio_streamrpc.contract.payloads import payloads_for
from trio_streamrpc.errors import RpcError
from trio_streamrpc.limits import Limits, Window
from trio_streamrpc.nurseries import open_background_nursery
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.runtime.connection import Connection
from trio_streamrpc.runtime.failures import LOGGER
from trio_streamrpc.runtime.opening import run_connection
from trio_streamrpc.testing.fuzzing.failures import ServiceFalsified
from trio_streamrpc.testing.fuzzing.watching import Watch
from trio_streamrpc.testing.networks import Network, open_simulated_transports
from trio_streamrpc.testing.scheduling import check_clock, choose_seed, repeatable, simulated_time
from trio_streamrpc.testing.simulation import Run, remember_run

__all__ = ["LIMITS", "PATIENCE", "ServiceMaker", "check_service", "makes", "open_service"]

#: A service; its class; what makes one; or an async context manager that gives one.
ServiceMaker = object | Callable[[], Any]

#: Small windows, so that it shows early who minds them.
LIMITS: Final = Limits(window=Window(4, 4096), max_window=Window(4, 4096), cancel_timeout=30.0)

#: How long a caller waits who waits for an answer, in seconds.
PATIENCE: Final = 600.0
#: How long what a service has started may take to end after its connection, in seconds.
SETTLING: Final = 10
#: How often it is tried to end what does not end by itself.
ATTEMPTS: Final = 100


def makes(service: ServiceMaker) -> bool:
    """Whether it makes services, and is none itself."""
    return inspect.isclass(service) or inspect.isroutine(service) or isinstance(service, partial)


@asynccontextmanager
async def open_service(service: ServiceMaker) -> AsyncIterator[Any]:
    """The service itself, made if it has to be."""
    made: Any = service
    if makes(service):
        made = made()
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        async with made as entered:
            yield entered
    else:
        yield made


@asynccontextmanager
async def check_service(
    service: ServiceMaker,
    *,
    network: Network | None = None,
    seed: int | None = 0,
    encoding: Encoding = "msgpack",
    limits: Limits = LIMITS,
    converter: cattrs.Converter | None = None,
    patience: float = PATIENCE,
) -> AsyncIterator[Connection]:
    """As :func:`.simulate`, and the service is watched: what :func:`.fuzz` pastes into tests.

    ``service`` is one, or its class, or a function that makes it, or one that gives an async
    context manager, which is entered around everything.

    When the block ends, the connection does; then :exc:`.ServiceFalsified` is raised if the service
    has raised what it does not declare, has not finished a cleanup, has left a task behind, has
    given what does not match its annotations, has produced what nobody took, has spun, or has not
    answered in ``patience`` simulated seconds a call whose caller waits for that, which ends the
    block. So it is if the context manager raises something when it is left: what is to hold of a
    service when everything has ended can be asserted there. It is raised in the place of what the
    block has raised.
    """
    check_clock("check_service()")
    watch, seed = Watch(patience), choose_seed(seed)
    failed: BaseException | None = None
    with repeatable(seed), simulated_time(), _heard_by(watch):
        trio.lowlevel.add_instrument(watch)
        made = None
        try:
            async with open_service(service) as made:
                try:
                    async with _open_watched(
                        watch, made, network, seed, encoding, limits, converter
                    ) as connection:
                        yield connection
                except Exception as error:
                    # No business of the service's context manager.
                    failed = error
        except Exception as error:
            if made is None:
                raise
            watch.note_broken(error)
        finally:
            trio.lowlevel.remove_instrument(watch)
    if watch.failures:
        raise ServiceFalsified(watch.failures) from failed
    if failed is not None:
        raise failed


@asynccontextmanager
async def _open_watched(
    watch: Watch,
    service: object,
    network: Network | None,
    seed: int,
    encoding: Encoding,
    limits: Limits,
    converter: cattrs.Converter | None,
) -> AsyncIterator[Connection]:
    payloads = payloads_for(encoding, converter)
    table = watch.table(service, payloads)
    here, there = open_simulated_transports(network, encoding=encoding, seed=seed)
    remember_run(Run(seed, network or Network(), here.trace))

    async def serve_it() -> None:
        try:
            async with run_connection(
                there, "accepting", table=table, payloads=payloads, limits=limits
            ) as server:
                async with open_background_nursery() as looking:
                    looking.start_soon(watch.look, server)
                    await server.wait_closed()
        except RpcError:
            pass  # of the handshake; the client's side tells how
        finally:
            served.set()

    async def stop_when_broken(scope: trio.CancelScope) -> None:
        await watch.broken.wait()
        scope.cancel()

    served = trio.Event()
    async with open_background_nursery() as nursery:
        nursery.start_soon(serve_it, name="the service's side")
        with trio.CancelScope() as scope:
            nursery.start_soon(stop_when_broken, scope, name="the end of what is broken")
            try:
                async with open_connection(here, limits=limits, converter=converter) as connection:
                    yield connection
            finally:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(here)
                    await _settle(watch, served)
                    watch.look_at_trace(here.trace)


async def _settle(watch: Watch, served: trio.Event) -> None:
    """Wait until the service's side has ended, and end what has not."""
    with trio.move_on_after(SETTLING + LIMITS.cleanup):
        await served.wait()
    for _ in range(SETTLING):
        if not watch.left:
            break
        await trio.sleep(1.0)
    watch.look_at_tasks()
    watch.close()
    for _ in range(ATTEMPTS):
        if not watch.abandon():
            break
        await trio.sleep(1.0)


@contextmanager
def _heard_by(watch: Watch) -> Iterator[None]:
    """The log goes to the watch, and nowhere else."""
    propagated, LOGGER.propagate = LOGGER.propagate, False
    LOGGER.addHandler(watch)
    try:
        yield
    finally:
        LOGGER.removeHandler(watch)
        LOGGER.propagate = propagated
