"""The command line; what it needs besides the library is the extra ``cli``."""

from trio_streamrpc.cli.entry import main as main
