"""machines/peers.py: peers that break one rule each are found out, and it is told which."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec import Raw

from trio_streamrpc.protocol.frames import Call
from trio_streamrpc.testing import PeerMachine, ReferencePeer
from trio_streamrpc.testing.machines.peers import Peer
from trio_streamrpc.testing.plain_frames import encode_message, encode_payload, read_message


class RunsAhead(ReferencePeer):
    def pump(self) -> None:
        for id in self.counting:
            credit = self.endpoint.exchanges[id].credit
            assert credit is not None
            credit.items = max(credit.items, 1)
        super().pump()


class SkipsAnItem(ReferencePeer):
    def pump(self) -> None:
        for state in self.counting.values():
            state[0] += state[0] == 3
        super().pump()


class ForgetsToEnd(ReferencePeer):
    def cancel(self, id: int) -> None:
        if id not in self.waiting:
            super().cancel(id)


class EndsTwice(ReferencePeer):
    def said(self) -> list[bytes | str]:
        found = super().said()
        return found + [each for each in found[-1:] if self.endpoint.highest_seen > 3]


class CutsItShort(ReferencePeer):
    def start(self, call: Call) -> None:
        super().start(call)
        if call.method == "count":
            self.counting[call.id][1] = min(self.counting[call.id][1], 5)


class AnswersSomethingElse(ReferencePeer):
    def start(self, call: Call) -> None:
        if call.method == "echo":
            call.args = Raw(encode_payload(self.encoding, [str(self.value_of(call.args)[0])]))
        super().start(call)


class NeverPongs(ReferencePeer):
    def receive(self, message: bytes | str) -> list[bytes | str]:
        said = [read_message(each) for each in super().receive(message)]
        kept = [[each for each in frames if each["type"] != "pong"] for frames in said]
        return [encode_message(self.encoding, *frames) for frames in kept if frames]


class Calls(ReferencePeer):
    def start(self, call: Call) -> None:
        super().start(call)
        self.endpoint.call("echo", encode_payload(self.encoding, [1]))


FAULTS = [
    (RunsAhead, "beyond the credit"),
    (SkipsAnItem, "items"),
    (ForgetsToEnd, "R6: call"),
    (EndsTwice, "which is CLOSED|a second hello"),
    (CutsItShort, "R6: end, and items are missing"),
    (AnswersSomethingElse, "another value"),
    (NeverPongs, "R24"),
    (Calls, "serves nothing"),
]


@pytest.mark.parametrize(("faulty", "told"), FAULTS, ids=lambda each: str(each))
def test_a_peer_that_breaks_a_rule(faulty: type[Any], told: str) -> None:
    class Machine(PeerMachine):
        def make_peer(self) -> Peer:
            peer: Peer = faulty(self.encoding)
            return peer

    with pytest.raises(Exception, match=told):
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=300,
                stateful_step_count=30,
                phases=[Phase.generate],
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
