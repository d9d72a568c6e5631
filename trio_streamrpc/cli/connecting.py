"""How commands connect: what they are told about it on the command line, and how it may fail."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from trio_streamrpc.cli.failures import Misuse, NotConnected, message_of
from trio_streamrpc.client import connect
from trio_streamrpc.errors import RpcError
from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.runtime.connection import Connection

__all__ = ["Place", "connecting_options", "open_place", "token_from", "traceback_option"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect, and with what."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    token: str | None = None

    @classmethod
    def of(
        cls, url: str, header: tuple[str, ...], metadata: tuple[str, ...], token_env: str | None
    ) -> Place:
        """What the options of :func:`connecting_options` say; raises :exc:`Failure`."""
        return cls(
            url,
            tuple(header_of(each) for each in header),
            tuple(pair(each, "=", "--metadata", "k=v") for each in metadata),
            None if token_env is None else token_from(token_env),
        )


def header_of(text: str) -> tuple[str, str]:
    """The name and the value of a header; blanks around the value are no part of it."""
    name, value = pair(text, ":", "--header", "k:v")
    return name.strip(), value.strip()


def pair(text: str, separator: str, option: str, form: str) -> tuple[str, str]:
    """A name and its value."""
    name, found, value = text.partition(separator)
    if not found or not name.strip():
        raise Misuse(f"{option} {text!r}: it is to be {form}")
    return name, value


def token_from(variable: str) -> str:
    """The token in a variable of the environment."""
    token = os.environ.get(variable, "")
    if not token:
        raise Misuse(f"--token-env {variable}: there is no such variable, or it is empty")
    return token


def connecting_options(command: F) -> F:
    """The options of each command that connects; see :meth:`Place.of`."""
    options: list[Callable[[F], F]] = [
        traceback_option,
        click.option(
            "--token-env",
            metavar="NAME",
            help="Show the bearer token in this variable of the environment.",
        ),
        click.option(
            "--metadata",
            multiple=True,
            metavar="K=V",
            help="Metadata of the connection, which handlers see. May be repeated.",
        ),
        click.option(
            "--header",
            multiple=True,
            metavar="K:V",
            help="A header of the WebSocket's handshake. May be repeated.",
        ),
    ]
    for option in options:
        command = option(command)
    return command


def traceback_option(command: F) -> F:
    """The option ``--traceback``, for ``failures.run``."""
    option = click.option(
        "--traceback", "shows_traceback", is_flag=True, help="Show errors with their traceback."
    )
    return option(command)


@asynccontextmanager
async def open_place(place: Place, encoding: Encoding = "msgpack") -> AsyncIterator[Connection]:
    """A connection to a place. Raises :exc:`Failure` if there is none to be had."""
    headers, metadata = list(place.headers), dict(place.metadata)
    if place.token is not None:
        if urlsplit(place.url).scheme in ("ws", "wss"):
            headers.append(("Authorization", f"Bearer {place.token}"))
        else:
            metadata["token"] = place.token
    async with AsyncExitStack() as stack:
        try:
            opened = connect(place.url, encoding=encoding, headers=headers, metadata=metadata)
            connection = await stack.enter_async_context(opened)
        except RpcError as error:
            raise NotConnected(message_of(error)) from error
        except (TypeError, ValueError) as error:
            raise Misuse(str(error)) from error
        yield connection
