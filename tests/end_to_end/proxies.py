"""The real nginx and HAProxy, before a server on this machine.

They run with the configurations of docs/examples/deploy. What is changed in these is what cannot be
the same on every machine: ports, paths, and how many of what there are; and in some tests a time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import trio

from tests.addresses import AUTHORITY, free_port

__all__ = ["DEPLOY", "Proxy", "behind", "checked", "listens", "missing"]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "examples" / "deploy"
#: Where what is fetched from Debian is kept from one run to the next.
FETCHED = ROOT / ".proxies"

CONFIGURATIONS = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
#: … and how it is named to them: a process that stays in the foreground, and serves reloads.
OPTIONS = {
    "nginx": ["-g", "daemon off; error_log stderr notice;", "-c"],
    "haproxy": ["-W", "-f"],
}
CHECKS = {"nginx": "-t", "haproxy": "-c"}
#: What has a proxy begin anew, with what it has going on.
RELOADS = {"nginx": signal.SIGHUP, "haproxy": signal.SIGUSR2}


@dataclass
class Proxy:
    """A proxy that runs."""

    url: str
    process: trio.Process
    log: Path
    reloads: signal.Signals

    def reload(self) -> None:
        self.process.send_signal(self.reloads)

    async def stop(self) -> None:
        self.process.terminate()
        await self.process.wait()


@functools.cache
def missing(name: str) -> str | None:
    """Why there is no such proxy; None if there is one, which may have been fetched for that."""
    if installed(name) is not None or (FETCHED / name).is_dir():
        return None
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return f"{name} is not installed, and this is no Debian to fetch it from"
    return fetch(name)


def installed(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def fetch(name: str) -> str | None:
    """Unpack the Debian package, and those that it needs, without installing them."""
    FETCHED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FETCHED) as directory:
        archives, unpacked = Path(directory, "archives"), Path(directory, "unpacked")
        (archives / "partial").mkdir(parents=True)
        lists = Path(directory, "lists")
        command = ["apt-get", "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache={directory}"]
        install = ["install", "--yes", "--download-only", "--no-install-recommends", name]
        if not done([*command, *install]):
            # There may be no lists of packages here, or old ones.
            (lists / "partial").mkdir(parents=True)
            command += ["-o", f"Dir::State::lists={lists}"]
            if not (done([*command, "update"]) and done([*command, *install])):
                return f"{name} is not installed, and its package cannot be fetched"
        for each in archives.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", each, unpacked], check=True, timeout=60)
        # Another process may have had it there first.
        with contextlib.suppress(OSError):
            unpacked.rename(FETCHED / name)
    assert (FETCHED / name).is_dir()
    return None


def program(name: str) -> tuple[str, Mapping[str, str]]:
    """Where it is, and the environment that it needs."""
    found = installed(name)
    if found is not None:
        return found, os.environ
    place = FETCHED / name
    libraries = os.pathsep.join(str(each) for each in place.glob("usr/lib/*-linux-gnu"))
    return str(place / "usr" / "sbin" / name), {**os.environ, "LD_LIBRARY_PATH": libraries}


def done(command: list[str]) -> bool:
    return not subprocess.run(command, check=False, capture_output=True, timeout=300).returncode


def configured(
    name: str, service: str, port: int, place: Path, changes: Mapping[str, str]
) -> list[str]:
    """Write the configuration for that port and that service; gives the command's arguments."""
    authority = AUTHORITY.issue_cert("127.0.0.1", "localhost")
    (place / "key.pem").write_bytes(authority.private_key_pem.bytes())
    (place / "chain.pem").write_bytes(b"".join(each.bytes() for each in authority.cert_chain_pems))
    (place / "all.pem").write_bytes(authority.private_key_and_cert_chain_pem.bytes())
    paths = {
        "nginx": {
            "127.0.0.1:8765": urlsplit(service).netloc,
            "listen 443": f"listen 127.0.0.1:{port}",
            "server_name rpc.example.com": "server_name localhost",
            "/etc/ssl/rpc.example.com": str(place),
            "/run/nginx.pid": f"{place}/pid",
            "/var/log/nginx/": f"{place}/",
            # Where it would put what there is none of here: bodies of requests and of answers.
            "http {\n": "http {\n"
            + "".join(
                f"    {each}_temp_path {place}/{each};\n"
                for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
            "worker_processes auto": "worker_processes 1",
            "worker_rlimit_nofile 40000;\n": "",
            "worker_connections 20000": "worker_connections 100",
        },
        "haproxy": {
            "127.0.0.1:8765": urlsplit(service).netloc,
            "bind :443": f"bind 127.0.0.1:{port}",
            "/etc/haproxy/rpc.example.com.pem": f"{place}/all.pem",
            "maxconn 20000": "maxconn 100",
        },
    }
    text = (DEPLOY / CONFIGURATIONS[name]).read_text(encoding="utf-8")
    for old, new in {**paths[name], **changes}.items():
        assert old in text, f"{CONFIGURATIONS[name]} has no {old!r}"
        text = text.replace(old, new)
    path = place / CONFIGURATIONS[name]
    path.write_text(text, encoding="utf-8")
    return [*OPTIONS[name], str(path)]


async def checked(name: str, service: str, place: Path) -> tuple[int, str]:
    """What it says of its configuration: an exit code, and words."""
    path, environment = program(name)
    arguments = configured(name, service, free_port(), place, {})
    done = await trio.run_process(
        [path, CHECKS[name], *arguments],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
        env=environment,
    )
    return done.returncode, done.stdout.decode()


@asynccontextmanager
async def behind(
    name: str, service: str, place: Path, changes: Mapping[str, str] | None = None
) -> AsyncIterator[Proxy]:
    """A proxy before the service at a URL, with these changes to its configuration."""
    path, environment = program(name)
    port = free_port()
    log = place / "log"
    command = [path, *configured(name, service, port, place, changes or {})]
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        with trio.fail_after(20):
            while not await listens(port):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                await trio.sleep(0.02)
        yield Proxy(f"wss://127.0.0.1:{port}", process, log, RELOADS[name])
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            with trio.move_on_after(5):
                await process.wait()
            process.kill()
            await process.wait()


async def listens(port: int) -> bool:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port):
            return True
    except OSError:
        return False
