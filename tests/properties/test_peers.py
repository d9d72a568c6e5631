"""Our endpoint against a peer that only takes messages and gives some, as others would have it."""

from __future__ import annotations

from hypothesis import settings

from trio_streamrpc.protocol.codecs import Encoding
from trio_streamrpc.testing.machines.peers import PeerMachine

STEPS = settings(stateful_step_count=max(60, settings().stateful_step_count))


class InJson(PeerMachine):
    """R5 to R9, R14 to R16, R21, R24."""

    encoding: Encoding = "json"


TestMsgpack = PeerMachine.TestCase
TestMsgpack.settings = STEPS
TestJson = InJson.TestCase
TestJson.settings = STEPS
