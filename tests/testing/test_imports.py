"""What is imported when, and what is said where the extra is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import trio_streamrpc.testing

#: Without the extra: whoever imports Hypothesis is told that there is none.
WITHOUT = "import sys; sys.modules['hypothesis'] = None; "


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.mark.parametrize("module", ["trio_streamrpc", "trio_streamrpc.testing"])
def test_hypothesis_is_not_imported_before_it_is_needed(module: str) -> None:
    done = run(f"import sys, {module}; print('hypothesis' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_what_needs_no_hypothesis_is_there_without_it() -> None:
    names = "open_pair, EndpointPair, Network, check_codec, check_transport"
    done = run(WITHOUT + f"from trio_streamrpc.testing import {names}; print('there')")
    assert (done.stdout, done.stderr) == ("there\n", "")


@pytest.mark.parametrize("name", ["strategies", "ServiceCall", "Upload", "fuzz", "PeerMachine"])
def test_what_needs_it_names_the_extra(name: str) -> None:
    done = run(WITHOUT + f"from trio_streamrpc.testing import {name}")
    assert done.returncode == 1
    assert "pip install 'trio-streamrpc[testing]'" in done.stderr.splitlines()[-1]


def test_every_name_is_there() -> None:
    for name in dir(trio_streamrpc.testing):
        assert getattr(trio_streamrpc.testing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trio_streamrpc.testing.nothing
