"""Hypothesis strategies: for the wire as it is, as it may be, and as it must not be; for services.

====================== ===========================================================================
``frames``             one frame, as a plain dict: valid, or valid in form and hostile
``sequences``          what the other side may say, frame after frame, from a state of an id
``damage``             messages that were broken on the way
``windows_and_limits`` windows, limits
``schedules``          delays, splits, cuts and cancellations; networks
``values``             values of a type hint: anywhere, at its edges, and of another type
``calls``              calls of a service: arguments, uploads, and what is done with what comes
====================== ===========================================================================

They need Hypothesis, which the extra ``testing`` installs.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401  # to say at once what is missing
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    raise ModuleNotFoundError(
        "this part of trio_streamrpc.testing needs Hypothesis: "
        "pip install 'trio-streamrpc[testing]'",
        name="hypothesis",
    ) from None

from trio_streamrpc.testing.strategies.calls import service_calls as service_calls
from trio_streamrpc.testing.strategies.damage import damaged as damaged
from trio_streamrpc.testing.strategies.frames import encodings as encodings
from trio_streamrpc.testing.strategies.frames import frames as frames
from trio_streamrpc.testing.strategies.frames import hostile_frames as hostile_frames
from trio_streamrpc.testing.strategies.frames import messages as messages
from trio_streamrpc.testing.strategies.frames import payloads as payloads
from trio_streamrpc.testing.strategies.schedules import networks as networks
from trio_streamrpc.testing.strategies.schedules import schedules as schedules
from trio_streamrpc.testing.strategies.sequences import legal_sequences as legal_sequences
from trio_streamrpc.testing.strategies.values import edge_values as edge_values
from trio_streamrpc.testing.strategies.values import values as values
from trio_streamrpc.testing.strategies.values import wrong_values as wrong_values
from trio_streamrpc.testing.strategies.windows_and_limits import limits as limits
from trio_streamrpc.testing.strategies.windows_and_limits import windows as windows
