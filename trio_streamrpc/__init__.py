"""Structured-concurrency RPC for Trio, over WebSockets or any stream of bytes.

The layers, from the top; each imports only those below it::

    cli, testing        commands; the kit for tests
    process             serve_forever(), which signals end in order
    client, server      connect(), serve(); beside them batching, and interceptors that are ready
    runtime             one connection alive under Trio
    transports          whole messages over something
    contract            what a service is, read from its Python source
    protocol            the wire, without I/O
    limits, errors      what everybody knows
"""

from trio_streamrpc.batching import batched as batched
from trio_streamrpc.children import connect_parent as connect_parent
from trio_streamrpc.children import connect_process as connect_process
from trio_streamrpc.client import connect as connect
from trio_streamrpc.client import open_connection as open_connection
from trio_streamrpc.contract.decorators import rpc as rpc
from trio_streamrpc.errors import Aborted as Aborted
from trio_streamrpc.errors import AlreadyExists as AlreadyExists
from trio_streamrpc.errors import CallCancelled as CallCancelled
from trio_streamrpc.errors import CleanupTimeout as CleanupTimeout
from trio_streamrpc.errors import Code as Code
from trio_streamrpc.errors import ConnectionLost as ConnectionLost
from trio_streamrpc.errors import DataLoss as DataLoss
from trio_streamrpc.errors import DeadlineExceeded as DeadlineExceeded
from trio_streamrpc.errors import FailedPrecondition as FailedPrecondition
from trio_streamrpc.errors import FlowControlError as FlowControlError
from trio_streamrpc.errors import InternalError as InternalError
from trio_streamrpc.errors import InvalidArgument as InvalidArgument
from trio_streamrpc.errors import LocalProtocolError as LocalProtocolError
from trio_streamrpc.errors import NotFound as NotFound
from trio_streamrpc.errors import OutOfRange as OutOfRange
from trio_streamrpc.errors import PermissionDenied as PermissionDenied
from trio_streamrpc.errors import ProtocolError as ProtocolError
from trio_streamrpc.errors import RemoteError as RemoteError
from trio_streamrpc.errors import RemoteProtocolError as RemoteProtocolError
from trio_streamrpc.errors import ResourceExhausted as ResourceExhausted
from trio_streamrpc.errors import RpcError as RpcError
from trio_streamrpc.errors import Unauthenticated as Unauthenticated
from trio_streamrpc.errors import Unavailable as Unavailable
from trio_streamrpc.errors import Unimplemented as Unimplemented
from trio_streamrpc.limits import Limits as Limits
from trio_streamrpc.limits import Window as Window
from trio_streamrpc.process import serve_forever as serve_forever
from trio_streamrpc.relays import relay as relay
from trio_streamrpc.runtime.calls import Call as Call
from trio_streamrpc.runtime.calls import current_call as current_call
from trio_streamrpc.runtime.connection import Connection as Connection
from trio_streamrpc.runtime.handshake import Handshake as Handshake
from trio_streamrpc.runtime.interceptors import Interceptor as Interceptor
from trio_streamrpc.runtime.interceptors import Proceed as Proceed
from trio_streamrpc.runtime.local import LocalStream as LocalStream
from trio_streamrpc.runtime.proxies import ConnectionStatistics as ConnectionStatistics
from trio_streamrpc.runtime.proxies import with_options as with_options
from trio_streamrpc.runtime.streams import Stream as Stream
from trio_streamrpc.runtime.streams import StreamStatistics as StreamStatistics
from trio_streamrpc.server import Server as Server
from trio_streamrpc.server import serve as serve
from trio_streamrpc.transports.base import Transport as Transport
