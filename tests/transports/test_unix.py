"""unix.py: paths in URLs, and files that stand for servers, dead or alive."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from tests.end_to_end.network import serving
from tests.service import Service
from trio_streamrpc import Unavailable, connect, serve
from trio_streamrpc.transports.unix import UnixListener, connect_unix, listen_unix, path_in


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("unix:///run/service", "/run/service"),
        ("unix:/run/service", "/run/service"),
        ("UNIX:///Run/Service.sock", "/Run/Service.sock"),
        ("unix:///run/a%20b%3Fc%23%25", "/run/a b?c#%"),
        ("unix:///run/%C3%A9", "/run/é"),
        ("unix:///run/%0A", "/run/\n"),
        ("unix:///run/%FF", os.fsdecode(b"/run/\xff")),
        ("unix:///run/é", "/run/é"),
    ],
)
def test_paths(url: str, path: str) -> None:
    assert path_in(url) == path


NO_PATHS = [
    "unix:",
    "unix://",
    "unix:run/service",
    "unix://run/service",
    "unix://localhost/run/service",
    "unix://user@/run/service",
    "unix:///run/service?query",
    "unix:///run/service#fragment",
    "unix:///run/%00",
    "unix:///run/\0",
    "unix:///run/a\tb",
    "unix:///run/a\n",
    "unix:///run/\x7f",
    "\x01unix:///run/service",
    "unix:///" + "x" * 200,
]


@pytest.mark.parametrize("url", NO_PATHS)
async def test_paths_that_cannot_be(url: str) -> None:
    """ValueError from either side, which shows the URL."""
    with pytest.raises(ValueError, match=r"unix:"):
        async with connect(url):
            pytest.fail("the block must not begin")
    with pytest.raises(ValueError, match=r"unix:"):
        await serve(Service(), url)


async def test_a_system_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trio.socket, "AF_UNIX")
    with pytest.raises(ValueError, match="no Unix sockets on this system"):
        async with connect("unix:///run/service"):
            pytest.fail("the block must not begin")
    with pytest.raises(ValueError, match="no Unix sockets on this system"):
        await serve(Service(), "unix:///run/service")


async def test_serving_at_a_path(tmp_path: Path) -> None:
    """The file is there as long as the server is."""
    path = tmp_path / "a b"
    url = f"unix://{tmp_path}/a%20b"
    async with serving(Service(), url) as server:
        assert server.url == url
        assert path.is_socket()
        async with connect(url) as connection:
            assert await connection.call("add", 1, 2) == 3
            assert connection.remote == str(path)
            [there] = server.connections
            assert there.remote == str(path)
    assert os.listdir(tmp_path) == []


async def test_the_umask_says_who_may_connect(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        async with serving(Service(), f"unix://{tmp_path}/s"):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) & 0o077 == 0
    finally:
        os.umask(before)


@pytest.mark.parametrize("what", ["nothing", "directory", "dead"])
async def test_nobody_listens(what: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    if what == "directory":
        path.mkdir()
    if what == "dead":
        leave_behind(path)
    with pytest.raises(Unavailable, match="cannot connect to unix:///"):
        async with connect(f"unix://{path}"):
            pytest.fail("the block must not begin")


def leave_behind(path: Path) -> None:
    """What a server leaves that was killed."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


async def test_what_a_dead_server_has_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    leave_behind(path)
    async with serving(Service(), f"unix://{path}"):
        async with connect(f"unix://{path}") as connection:
            assert await connection.call("add", 1, 2) == 3
    assert not path.exists()


async def test_a_server_that_lives_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with serving(Service(), f"unix://{path}"):
        for _ in range(3):
            with pytest.raises(OSError, match="in use"):
                await serve(Service(), f"unix://{path}")
        async with connect(f"unix://{path}") as connection:
            assert await connection.call("add", 1, 2) == 3


@pytest.mark.parametrize("before", ["nothing", "dead"])
async def test_only_one_of_several_that_come_together(before: str, tmp_path: Path) -> None:
    """Whoever serves at the path is reached there; the others are told."""
    for number in range(20):
        path = tmp_path / str(number)
        if before == "dead":
            leave_behind(path)
        url = f"unix://{path}"
        listeners: list[UnixListener] = []
        refused: list[int | None] = []

        async def listen(
            url: str, listeners: list[UnixListener], refused: list[int | None]
        ) -> None:
            try:
                listeners.append(await listen_unix(url, url.removeprefix("unix://")))
            except OSError as error:
                refused.append(error.errno)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(listen, url, listeners, refused)
        assert refused == [errno.EADDRINUSE] * 2
        [listener] = listeners
        async with await connect_unix(url, str(path)), await listener.accept():
            pass
        await listener.aclose()
        assert not path.exists()


async def test_a_server_too_busy_to_accept_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(OSError, match="in use"):
            await serve(Service(), f"unix://{path}")
        with pytest.raises(Unavailable, match="cannot connect to unix:///"):
            async with connect(f"unix://{path}"):
                pytest.fail("the block must not begin")
    assert path.is_socket()


async def test_a_socket_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(OSError, match="in use"):
            await serve(Service(), f"unix://{path}")
    assert path.is_socket()


async def test_cancelled_while_it_connects(tmp_path: Path) -> None:
    async with serving(Service(), f"unix://{tmp_path}/s") as server:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with connect(server.url):
                pytest.fail("the block must not begin")
        assert scope.cancelled_caught


@pytest.mark.parametrize("what", ["file", "directory", "link", "link to a socket", "pipe"])
async def test_what_is_no_socket_is_never_removed(what: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    other = tmp_path / "other"
    match what:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to(other)
        case "link to a socket":
            leave_behind(other)
            path.symlink_to(other)
        case _:
            os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(OSError, match="in use"):
        await serve(Service(), f"unix://{path}")
    assert path.lstat().st_ino == before.st_ino


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await serve(Service(), f"unix://{tmp_path}/none/s")


async def test_a_file_that_is_another_ones_by_now_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = await listen_unix(f"unix://{path}", str(path))
    path.rename(tmp_path / "moved")
    second = await listen_unix(f"unix://{path}", str(path))
    await first.aclose()
    assert path.is_socket()
    await second.aclose()
    await second.aclose()
    assert os.listdir(tmp_path) == ["moved"]


async def test_a_file_that_is_gone_already(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = await listen_unix(f"unix://{path}", str(path))
    path.unlink()
    await listener.aclose()


async def test_cancelled_at_every_point(tmp_path: Path) -> None:
    """Nothing is left there that another server could not take."""
    path = tmp_path / "s"
    for ticks in range(12):
        leave_behind(path)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel(scope: trio.CancelScope, ticks: int) -> None:
                    for _ in range(ticks):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel, scope, ticks)
                await serve(Service(), f"unix://{path}")
        assert scope.cancelled_caught
        path.unlink(missing_ok=True)
