"""Other systems' wires, for ``serve(…, dialects=…)`` and ``connect(…, dialect=…)``."""

from trio_streamrpc.dialects.base import Dialect as Dialect
from trio_streamrpc.dialects.base import Native
from trio_streamrpc.dialects.kkrpc_0 import KkrpcClassic
from trio_streamrpc.dialects.kkrpc_2 import Kkrpc
from trio_streamrpc.dialects.signal_rpc import Signal

#: streamrpc/1 itself, which is all that is served where nothing else is named.
native = Native()
#: kkrpc 2: calls, properties, uploads, callbacks and streams with credit.
kkrpc = Kkrpc()
#: kkrpc 0.x: calls, properties, callbacks and streams; ``kkrpc_classic(version="superjson")`` is
#: for a client that is to speak that version first.
kkrpc_classic = KkrpcClassic()
#: signal-rpc: calls and streams; ``signal.streams(connection)`` has streams by ids on which both
#: sides agree.
signal = Signal()
