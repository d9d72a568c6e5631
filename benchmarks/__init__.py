"""How fast trio_streamrpc is, beside its peers and its floors: ``python -m benchmarks``."""
