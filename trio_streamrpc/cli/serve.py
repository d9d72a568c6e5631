"""``trio-streamrpc serve``: a process that serves what stands in a module."""

from __future__ import annotations

import hmac
import logging
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

import click

from trio_streamrpc.cli.connecting import token_from, traceback_option
from trio_streamrpc.cli.failures import Failure, Misuse, run
from trio_streamrpc.cli.loading import load
from trio_streamrpc.cli.stdout import Stdout
from trio_streamrpc.errors import Unauthenticated
from trio_streamrpc.process import ServeOptions, serve_forever
from trio_streamrpc.runtime.handshake import Authenticate, Handshake
from trio_streamrpc.server import Server

__all__ = ["serve"]

ADDRESS = "127.0.0.1:8765"

EPILOG = """\b
Examples:
  trio-streamrpc serve market:Market
  trio-streamrpc serve market:Market --url tcp://127.0.0.1:8766 --token-env TOKEN
  trio-streamrpc serve market:Market --tls-cert cert.pem --tls-key key.pem
"""


@click.command(epilog=EPILOG, short_help="Serve a service that stands in a module.")
@click.argument("service", metavar="MODULE:SERVICE")
@click.option("--url", help=f"Where to serve it.  [default: ws://{ADDRESS}, wss:// with TLS]")
@click.option("--tls-cert", metavar="FILE", help="The server's certificate, and its chain.")
@click.option("--tls-key", metavar="FILE", help="Its key, if that is not in the same file.")
@click.option(
    "--token-env",
    metavar="NAME",
    help="Let in only who shows the bearer token in this variable of the environment.",
)
@click.option(
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="A web page that may connect, https://example.com. May be repeated.",
)
@click.option(
    "--reflection/--no-reflection",
    default=True,
    help="Whether the service tells what it has.  [default: it does]",
)
@traceback_option
def serve(
    service: str,
    url: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    token_env: str | None,
    allow_origin: tuple[str, ...],
    reflection: bool,
    shows_traceback: bool,
) -> None:
    """Serve SERVICE of MODULE, which is looked for from the current directory on.

    A class is instantiated without arguments; an instance, or a mapping, is served as it is. The
    service tells what it has, in the namespace "streamrpc". Clients show a token in the
    Authorization header, or as "token" in the metadata of their connection.

    SIGTERM ends it in order: what runs may finish within 20 s, and the exit code is 0.
    """
    if url is None:
        url = f"ws://{ADDRESS}" if tls_cert is None else f"wss://{ADDRESS}"
    options: ServeOptions = {"reflection": reflection}
    encrypted = urlsplit(url).scheme in ("wss", "tls")
    if encrypted and tls_cert is None:
        raise Misuse(f"{url} needs a --tls-cert")
    if tls_cert is not None:
        if not encrypted:
            raise Misuse(f"--tls-cert is for wss:// and tls://, and not for {url}")
        options["ssl_context"] = context_of(tls_cert, tls_key)
    elif tls_key is not None:
        raise Misuse("--tls-key needs a --tls-cert")
    if token_env is not None:
        options["authenticate"] = token_check(token_from(token_env))
    if allow_origin:
        options["allowed_origins"] = allow_origin
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    run(shows_traceback, serve_it, service, url, options)


async def serve_it(name: str, url: str, options: ServeOptions) -> None:
    """Serve what has that name until the process is told to end."""
    served = load(name)
    try:
        await serve_forever(served, url, task_status=Announcement(name), **options)
    except (TypeError, ValueError) as error:
        raise Misuse(str(error)) from error
    except OSError as error:
        raise Failure(f"cannot serve at {url}: {error.strerror or error}") from error


class Announcement:
    """Says where something is served, as soon as it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def started(self, value: Server | None = None) -> None:
        assert value is not None
        with suppress(OSError):
            # Whether somebody reads it is no condition for serving.
            Stdout().write_now(f"{self._name} is served at {value.url}\n".encode())


def context_of(certificate: str, key: str | None) -> ssl.SSLContext:
    """The TLS context of a server with that certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        files = certificate if key is None else f"{certificate} and {key}"
        raise Misuse(f"no certificate and key in {files}: {error.strerror}") from error
    return context


def token_check(token: str) -> Authenticate:
    """An ``authenticate`` that lets in who shows the token."""
    expected = encoded(token)

    async def authenticate(handshake: Handshake) -> None:
        shown = [handshake.metadata.get("token")]
        scheme, _, credentials = handshake.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            shown.append(credentials.strip())
        # Each is compared, and in a time that says nothing of how much of it is right.
        matches = [
            hmac.compare_digest(encoded(each), expected) for each in shown if isinstance(each, str)
        ]
        if not any(matches):
            raise Unauthenticated("a valid bearer token is needed")

    return authenticate


def encoded(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")
