"""Unix sockets: a path in a URL, and the file that stands for a server."""

from __future__ import annotations

import contextlib
import errno
import os
import socket as stdlib_socket
import stat
from urllib.parse import unquote_to_bytes, urlsplit

import trio

from trio_streamrpc.errors import Unavailable

__all__ = ["UnixListener", "connect_unix", "listen_unix", "path_in"]

#: As many as the system lets wait, as Trio asks for.
BACKLOG = 0xFFFF


def path_in(url: str) -> str:
    """The path of the socket that a ``unix://`` URL names; ValueError for one that names none."""
    # Written as they are, they would be left out without a word.
    if any(character < " " or character == "\x7f" for character in url):
        raise ValueError(f"{url!r}: a control character in the path of a socket is written as %0A")
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/"):
        raise ValueError(f"{url!r} names no absolute path; a URL looks like unix:///run/service")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r}: a ? or # in the path of a socket is written as %3F or %23")
    path = unquote_to_bytes(parts.path)
    if b"\0" in path:
        raise ValueError(f"{url!r} has a zero byte in its path")
    return os.fsdecode(path)


def _check_system() -> None:
    if not hasattr(trio.socket, "AF_UNIX"):
        raise ValueError("there are no Unix sockets on this system")


async def connect_unix(url: str, path: str) -> trio.SocketStream:
    """A socket to whoever listens at that path; :exc:`Unavailable` if nobody does."""
    _check_system()
    try:
        socket = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    except OSError as error:
        # No descriptor is left.
        raise Unavailable(f"cannot connect to {url}: {error}") from None
    try:
        await socket.connect(path)
        # Where too many wait to be accepted, Linux says so in a way that looks like success.
        socket.getpeername()
    except OSError as error:
        socket.close()
        _check_length(error, url)
        raise Unavailable(f"cannot connect to {url}: {error}") from None
    except BaseException:
        socket.close()
        raise
    return trio.SocketStream(socket)


class UnixListener(trio.abc.Listener[trio.SocketStream]):
    """Listens at a path, whose file goes when this does, unless it is another one by then."""

    def __init__(self, listener: trio.SocketListener, path: str) -> None:
        self._listener = listener
        self._path = path
        self._file = _identity(path)

    async def accept(self) -> trio.SocketStream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        # While it still listens: nobody else takes the file for one that was left behind.
        if self._file is not None and _identity(self._path) == self._file:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._file = None
        await self._listener.aclose()


async def listen_unix(url: str, path: str) -> UnixListener:
    """Listen at that path; a socket that a dead server has left there is replaced.

    Raises :exc:`OSError` if a server listens there, or if there is something that is no socket.
    """
    await trio.lowlevel.checkpoint()
    _check_system()
    # Nothing here waits: others would take a file at which nobody listens yet for a dead server's.
    socket = stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
    try:
        try:
            socket.bind(path)
        except OSError as error:
            _check_length(error, url)
            if error.errno != errno.EADDRINUSE or not _removed(path):
                raise
            socket.bind(path)
        socket.listen(BACKLOG)
        return UnixListener(trio.SocketListener(trio.socket.from_stdlib_socket(socket)), path)
    except BaseException:
        socket.close()
        raise


def _removed(path: str) -> bool:
    """Whether there was a socket that nobody listens at, and now is none."""
    file = _identity(path)
    if file is None:
        return False
    with stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM) as probe:
        # It is answered at once, or there is somebody who is too busy.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass
        except OSError:
            return False
        else:
            return False
    # Another process may have come meanwhile, and have done the same.
    if _identity(path) == file:
        os.unlink(path)
    return True


def _identity(path: str) -> tuple[int, int] | None:
    """Which file is there, if it is a socket."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def _check_length(error: OSError, url: str) -> None:
    # Python itself finds that the path does not fit, and has no number for it.
    if error.errno is None:
        raise ValueError(f"the path in {url!r} is too long for a socket: {error}") from None
