"""serve.py, in place: what it is told, and what it says where that cannot be."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
import trustme

from tests.cli.conftest import Invoke
from trio_streamrpc import Unauthenticated
from trio_streamrpc.cli import serve as module
from trio_streamrpc.runtime.handshake import Handshake
from trio_streamrpc.server import Server

SERVICE = "tests.cli.market:Market"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["nothing"], 2, "'nothing': it is to be package.module:Service"),
        (["tests.cli.market:Account.debit"], 2, "the service, "),
        ([SERVICE, "--url", "nowhere"], 2, "'nowhere' is no URL"),
        ([SERVICE, "--url", "wss://127.0.0.1:0"], 2, "wss://127.0.0.1:0 needs a --tls-cert"),
        (
            [SERVICE, "--url", "ws://127.0.0.1:0", "--tls-cert", "x"],
            2,
            "--tls-cert is for wss:// and tls://, and not for ws://127.0.0.1:0",
        ),
        ([SERVICE, "--tls-key", "x"], 2, "--tls-key needs a --tls-cert"),
        (
            [SERVICE, "--tls-cert", "/no/where"],
            2,
            "no certificate and key in /no/where: No such file",
        ),
        (
            [SERVICE, "--tls-cert", "/no", "--tls-key", "/where"],
            2,
            "no certificate and key in /no and /where: No such file",
        ),
        ([SERVICE, "--token-env", "NO_SUCH"], 2, "--token-env NO_SUCH: there is no such variable"),
        (
            [SERVICE, "--url", "tcp://127.0.0.1:0", "--allow-origin", "https://example.com"],
            2,
            "",
        ),
        ([SERVICE, "--allow-origin", "no origin"], 2, ""),
    ],
)
def test_what_cannot_be_served(invoke: Invoke, args: list[str], code: int, said: str) -> None:
    run = invoke("serve", *args)
    assert (run.code, run.out) == (code, "")
    assert run.err.startswith(f"Error: {said}")
    assert run.err.count("\n") == 1


def test_an_address_that_is_taken(invoke: Invoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        run = invoke("serve", SERVICE, "--url", url)
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith(f"Error: cannot serve at {url}: ")
    assert run.err.count("\n") == 1


@pytest.fixture
def ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What serves is told to end as soon as it has said where."""
    announce = module.Announcement.started

    def started(self: module.Announcement, value: Server | None = None) -> None:
        announce(self, value)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()

    monkeypatch.setattr(module.Announcement, "started", started)


@pytest.mark.usefixtures("ends_at_once")
def test_what_is_served(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    pem = tmp_path / "all.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(pem)
    monkeypatch.setenv("TOKEN", "secret")
    for args, scheme in (
        (["--url", "tls://127.0.0.1:0", "--tls-cert", str(pem), "--token-env", "TOKEN"], "tls"),
        (["--url", "ws://127.0.0.1:0", "--allow-origin", "https://example.com"], "ws"),
    ):
        run = invoke("serve", SERVICE, *args)
        assert run.code == 0
        assert run.out.startswith(f"{SERVICE} is served at {scheme}://127.0.0.1:")


@pytest.mark.usefixtures("ends_at_once")
def test_nobody_reads_where_it_is(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves all the same."""
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert invoke("serve", SERVICE, "--url", "ws://127.0.0.1:0").code == 0


@pytest.mark.parametrize(
    ("headers", "metadata"),
    [
        ({"authorization": "Bearer sécret"}, {}),
        ({"authorization": "bearer  sécret "}, {}),
        ({}, {"token": "sécret"}),
        ({"authorization": "Bearer other"}, {"token": "sécret"}),
        ({"authorization": "Basic x"}, {"token": "sécret"}),
    ],
)
async def test_who_shows_the_token_is_let_in(
    headers: dict[str, str], metadata: dict[str, object]
) -> None:
    check = module.token_check("sécret")
    handshake = Handshake(remote="x", encoding="json", headers=headers, metadata=metadata)
    assert await check(handshake) is None


@pytest.mark.parametrize(
    ("headers", "metadata"),
    [
        ({}, {}),
        ({"authorization": "Bearer"}, {}),
        ({"authorization": "sécret"}, {}),
        ({"authorization": "Basic sécret"}, {}),
        ({"authorization": "Bearer sécret2"}, {"token": "sécre"}),
        ({}, {"token": ["sécret"]}),
        ({}, {"token": None}),
        ({}, {"token": ""}),
        ({}, {"token": "\ud800"}),
    ],
)
async def test_who_does_not_is_refused(
    headers: dict[str, str], metadata: dict[str, object]
) -> None:
    check = module.token_check("sécret")
    handshake = Handshake(remote="x", encoding="json", headers=headers, metadata=metadata)
    with pytest.raises(Unauthenticated, match="a valid bearer token is needed"):
        await check(handshake)
