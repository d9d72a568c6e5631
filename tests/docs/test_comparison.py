"""docs/comparison.md, and what other pages say in figures: as measured, and with their sources."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.pictures import throughput
from trio_streamrpc import Code, Limits

DOCS = Path(__file__).parent.parent.parent / "docs"
COMPARISON = (DOCS / "comparison.md").read_text(encoding="utf-8")
PERFORMANCE = (DOCS / "performance.md").read_text(encoding="utf-8")
CREDIT = (DOCS / "explanation" / "credit.md").read_text(encoding="utf-8")
GRPC = (DOCS / "coming-from" / "grpc.md").read_text(encoding="utf-8")
SIGNALR = (DOCS / "coming-from" / "signalr.md").read_text(encoding="utf-8")
WEBSOCKETS = (DOCS / "coming-from" / "websockets.md").read_text(encoding="utf-8")


def figure(workload: str, name: str) -> float:
    return throughput.figures()[workload][name]


def test_each_row_has_a_cell_for_each_system() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", COMPARISON, re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_each_note_is_referred_to_and_has_a_source() -> None:
    notes = dict(re.findall(r"^\[\^([\w-]+)\]: (.*)$", COMPARISON, re.MULTILINE))
    text = COMPARISON.partition("\n[^")[0]
    assert set(re.findall(r"\[\^([\w-]+)\]", text)) == set(notes)
    assert all("](https://" in note or "](performance.md#" in note for note in notes.values())


def test_there_are_so_many_codes() -> None:
    assert f"| {len(Code)} codes" in COMPARISON


@pytest.mark.parametrize(
    ("page", "said", "workload", "name"),
    [
        (GRPC, "229 µs over WebSocket", "W1 µs", "trio_streamrpc, ws"),
        (GRPC, "123 µs over TCP", "W1 µs", "trio_streamrpc, tcp"),
        (GRPC, "`grpc.aio` takes 371", "W1 µs", "grpc.aio"),
        (
            WEBSOCKETS,
            "uvloop takes 97 µs",
            "W1 µs",
            "websockets + json by hand, asyncio with uvloop",
        ),
        (WEBSOCKETS, "takes 229 over WebSocket", "W1 µs", "trio_streamrpc, ws"),
        (WEBSOCKETS, "123 over TCP", "W1 µs", "trio_streamrpc, tcp"),
    ],
)
def test_times_are_those_that_were_measured(page: str, said: str, workload: str, name: str) -> None:
    assert said in page
    [number] = re.findall(r"\d+", said)
    assert float(number) == round(figure(workload, name))


def test_ratios_are_those_that_were_measured() -> None:
    assert "12 times as many small items" in GRPC
    assert "| W3 | websockets on uvloop" in PERFORMANCE
    assert "| | grpc.aio | 12.3 (" in PERFORMANCE
    for page in (COMPARISON, GRPC):
        assert "146" in page
    assert "grpc.aio 146; 6 MiB" in PERFORMANCE
    assert "| 4, the window exactly; 0.4 MiB |" in PERFORMANCE
    assert "let through 85 % of the items" in CREDIT
    assert "16 % of large chunks" in CREDIT
    assert "| 85 %; 16 % | 86 %; 10 % |" in PERFORMANCE


def test_limits_beside_others_are_the_defaults() -> None:
    limits = Limits()
    assert f"`Limits.max_calls`, {limits.max_calls} |" in SIGNALR
    assert limits.max_message_bytes == 2**20
    assert "`Limits.max_message_bytes`, 1 MiB; values up to 128 MiB in parts" in SIGNALR
    assert limits.max_value_bytes == 128 * 2**20
    assert "values of up to 128 MiB travel in parts" in GRPC


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_is_told_to_who_does_not_see_it(theme: str) -> None:
    figures = COMPARISON.partition(f"throughput-{theme}.svg\n:alt: ")[2].partition("\n")[0]
    for name, value in {
        "trio_streamrpc, ws": 229,
        "trio_streamrpc, tcp": 123,
        "trio_streamrpc, unix": 118,
        "websockets + json by hand, asyncio with uvloop": 97,
    }.items():
        assert f"{value} " in figures or f"{value}," in figures
        assert round(figure("W1 µs", name)) == value
    at_once = throughput.figures()["W2 calls/s"]
    for name, rounded in {"grpc.aio": "8,800", "rsocket-py, WebSocket": "28,000"}.items():
        assert rounded in figures
        assert abs(at_once[name] / float(rounded.replace(",", "")) - 1) < 0.02
