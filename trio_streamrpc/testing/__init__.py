"""The kit that tests this library, for the tests of services, transports and other implementations.

``open_pair`` and what else needs no Hypothesis is there as soon as the library is; the extra
``testing`` installs it for the strategies, the machines and ``fuzz``. What is asked for is imported
then, and not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trio_streamrpc.testing.pairs import open_pair as open_pair

if TYPE_CHECKING:
    from trio_streamrpc.testing import strategies as strategies
    from trio_streamrpc.testing.conformance.codecs import check_codec as check_codec
    from trio_streamrpc.testing.conformance.transports import check_transport as check_transport
    from trio_streamrpc.testing.fuzzing.checking import check_service as check_service
    from trio_streamrpc.testing.fuzzing.failures import Failure as Failure
    from trio_streamrpc.testing.fuzzing.failures import Fault as Fault
    from trio_streamrpc.testing.fuzzing.failures import ServiceFalsified as ServiceFalsified
    from trio_streamrpc.testing.fuzzing.running import move_on_after_steps as move_on_after_steps
    from trio_streamrpc.testing.fuzzing.running import open_task as open_task
    from trio_streamrpc.testing.fuzzing.running import take as take
    from trio_streamrpc.testing.fuzzing.searching import find_failures as find_failures
    from trio_streamrpc.testing.fuzzing.searching import fuzz as fuzz
    from trio_streamrpc.testing.machines.calls import CallsAndStreams as CallsAndStreams
    from trio_streamrpc.testing.machines.endpoints import EndpointMachine as EndpointMachine
    from trio_streamrpc.testing.machines.peers import PeerMachine as PeerMachine
    from trio_streamrpc.testing.machines.reference import ReferencePeer as ReferencePeer
    from trio_streamrpc.testing.networks import Network as Network
    from trio_streamrpc.testing.networks import SimulatedTransport as SimulatedTransport
    from trio_streamrpc.testing.networks import (
        open_simulated_transports as open_simulated_transports,
    )
    from trio_streamrpc.testing.scheduling import run_repeatably as run_repeatably
    from trio_streamrpc.testing.simulation import last_run as last_run
    from trio_streamrpc.testing.simulation import simulate as simulate
    from trio_streamrpc.testing.simulation import trace_of as trace_of
    from trio_streamrpc.testing.strategies.calls import Callback as Callback
    from trio_streamrpc.testing.strategies.calls import Left as Left
    from trio_streamrpc.testing.strategies.calls import ServiceCall as ServiceCall
    from trio_streamrpc.testing.strategies.calls import Upload as Upload
    from trio_streamrpc.testing.strategies.schedules import Schedule as Schedule
    from trio_streamrpc.testing.traces import Trace as Trace
    from trio_streamrpc.testing.wires import EndpointPair as EndpointPair

#: Where each of the other names stands.
_HOMES = {
    "Callback": "strategies.calls",
    "CallsAndStreams": "machines.calls",
    "EndpointMachine": "machines.endpoints",
    "EndpointPair": "wires",
    "Failure": "fuzzing.failures",
    "Fault": "fuzzing.failures",
    "Left": "strategies.calls",
    "Network": "networks",
    "PeerMachine": "machines.peers",
    "ReferencePeer": "machines.reference",
    "Schedule": "strategies.schedules",
    "ServiceCall": "strategies.calls",
    "SimulatedTransport": "networks",
    "ServiceFalsified": "fuzzing.failures",
    "Trace": "traces",
    "Upload": "strategies.calls",
    "check_codec": "conformance.codecs",
    "check_service": "fuzzing.checking",
    "check_transport": "conformance.transports",
    "find_failures": "fuzzing.searching",
    "fuzz": "fuzzing.searching",
    "last_run": "simulation",
    "move_on_after_steps": "fuzzing.running",
    "open_simulated_transports": "networks",
    "run_repeatably": "scheduling",
    "simulate": "simulation",
    "open_task": "fuzzing.running",
    "take": "fuzzing.running",
    "trace_of": "simulation",
}
_ROOMS = frozenset({"strategies"})


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS})
