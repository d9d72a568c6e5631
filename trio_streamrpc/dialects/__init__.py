"""Other systems' wires, for ``serve(…, dialects=…)`` and ``connect(…, dialect=…)``."""

from trio_streamrpc.dialects.base import Dialect as Dialect
from trio_streamrpc.dialects.base import Native
from trio_streamrpc.dialects.kkrpc_0 import KkrpcClassic
from trio_streamrpc.dialects.kkrpc_2 import Kkrpc
from trio_streamrpc.dialects.signal_rpc import Signal

#: streamrpc/1 itself, which is all that is served where nothing else is named.
native = Native()
#: kkrpc 2.
kkrpc = Kkrpc()
#: kkrpc 0.x.
kkrpc_classic = KkrpcClassic()
#: signal-rpc.
signal = Signal()
