"""What is known of a client that wants to come in, and who decides whether it may (R25)."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import trio

from trio_streamrpc.errors import ERRORS_BY_CODE, Code, RemoteError, RpcError, Unauthenticated
from trio_streamrpc.nurseries import leaves
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.runtime.failures import LOGGER, tell, text_of

if TYPE_CHECKING:
    from trio_streamrpc.transports.base import Transport

__all__ = ["Authenticate", "Handshake", "ask", "check_authenticate", "handshake_over", "identify"]

#: The longest text of an exception that is logged: it may hold what the client has sent.
TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What is known of a client before it is let in; what ``authenticate`` is called with (R25).

    All of it is what the client says of itself, save ``remote`` and ``certificate``. What may hold
    a credential is not in the ``repr()``, so that it does not come into a log with that. Compare a
    secret by :func:`hmac.compare_digest`, which takes as long wherever the two differ.
    """

    #: The other end: ``"127.0.0.1:41733"``, the path of a Unix socket, or ``"memory"``.
    remote: str
    #: "msgpack" or "json".
    encoding: Encoding
    #: What the client's hello brought along (``connect(…, metadata=…)``), over every transport:
    #: browsers cannot set headers, and byte streams have none.
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: The headers of a WebSocket's handshake, names in lower case; of one that came several times,
    #: the last.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: The path of a WebSocket's URL, percent-decoded: ``"/market"``; elsewhere empty.
    path: str = ""
    #: The names and values in the query of a WebSocket's URL, decoded; of a name that came several
    #: times, the last. URLs stand in logs: a token is better in the metadata.
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: The client's TLS certificate, as :meth:`ssl.SSLSocket.getpeercert` gives it; None if it has
    #: shown none. Clients are asked for one where the server's ``ssl_context`` has a
    #: ``verify_mode`` of ``ssl.CERT_REQUIRED`` or ``CERT_OPTIONAL``, and it is verified then.
    certificate: Mapping[str, Any] | None = field(default=None, repr=False)


#: Who decides: an async function that gives who the client is, for ``current_call().identity``, or
#: raises an :exc:`RpcError` to refuse it.
Authenticate = Callable[[Handshake], Awaitable[Any]]


def handshake_over(transport: Transport, metadata: Mapping[str, Any]) -> Handshake:
    """What a transport tells of its other end, and what that has said with its hello."""
    # Not urlsplit(): what the other side sent may be no URL at all.
    path, _, query = transport.target.partition("?")
    return Handshake(
        remote=transport.remote,
        encoding=transport.encoding,
        metadata=metadata,
        headers=transport.headers,
        path=unquote(path),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        certificate=transport.certificate(),
    )


def check_authenticate(authenticate: Any) -> None:
    """Raise :exc:`TypeError` for what cannot be an ``authenticate``."""
    if authenticate is None:
        return
    if not callable(authenticate) or inspect.isasyncgenfunction(authenticate):
        raise TypeError(f"authenticate is an async function, not {authenticate!r}")


async def ask(authenticate: Authenticate, handshake: Handshake) -> Any:
    """What ``authenticate`` says.

    Raises :exc:`TypeError` for one that is no async function, and for False: nobody is called that,
    and who means to refuse a client with it would let everybody in.
    """
    given = authenticate(handshake)
    if not inspect.isawaitable(given):
        raise TypeError(
            f"authenticate is no async function: it has returned {type(given).__name__}"
        )
    identity = await given
    if identity is False:
        raise TypeError(
            "authenticate has returned False, which is nobody: to refuse a client, raise "
            "Unauthenticated"
        )
    return identity


async def identify(authenticate: Authenticate, handshake: Handshake) -> Any:
    """Who the client is, as ``authenticate`` says.

    Raises an error of this library for one that is refused: what ``authenticate`` chose, by its
    code and message alone; for any other exception, which is logged here,
    :exc:`Unauthenticated` without a word of it.
    """
    try:
        return await ask(authenticate, handshake)
    except Exception as error:
        refusal = _refusal(error)
    except BaseExceptionGroup as group:
        # A nursery in authenticate was cancelled, and something failed besides: what is logged of
        # that is logged here, and the cancellation goes on.
        cancelled, failures = group.split(trio.Cancelled)
        if cancelled is None or not isinstance(failures, Exception):
            raise
        _log(failures)
        raise leaves(cancelled)[0] from None
    # Outside of the except block: where it came from is nobody's business any more.
    raise refusal


def _refusal(error: Exception) -> RpcError:
    chosen: BaseException = error
    if isinstance(error, BaseExceptionGroup) and len(leaves(error)) == 1:
        # A nursery in authenticate has wrapped it.
        [chosen] = leaves(error)
    if not isinstance(chosen, RpcError) or isinstance(chosen, RemoteError):
        # What another side has raised, whom authenticate has asked, was not chosen here.
        _log(error)
        return Unauthenticated("authentication failed")
    # A user's class may do anything when it is copied, and tells what it tells here.
    info = tell(chosen)
    return ERRORS_BY_CODE[Code(info.code)](info.message)


def _log(error: Exception) -> None:
    # The frames, but not the message as it is: it may hold what the client has sent.
    frames = "".join(traceback.format_tb(error.__traceback__))
    LOGGER.error(
        "authenticate failed, and the client was refused: %s: %s\n%s",
        type(error).__name__,
        ascii(text_of(error))[1:-1][:TEXT],
        frames,
    )
