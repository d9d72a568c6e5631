"""Two endpoints and a wire that loses nothing: whatever the two sides do, in any interleaving.

The machine is the kit's, and plays both runtimes and both applications.
"""

from __future__ import annotations

from hypothesis import settings

from trio_streamrpc.testing.machines.calls import CallsAndStreams

TestTwoEndpoints = CallsAndStreams.TestCase
# Many steps find nothing to do: fewer would not get far.
TestTwoEndpoints.settings = settings(
    max_examples=settings().max_examples // 2,
    stateful_step_count=max(150, settings().stateful_step_count),
)
