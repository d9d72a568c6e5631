"""For the tests of services: connections without sockets."""

from trio_streamrpc.testing.pairs import open_pair as open_pair
