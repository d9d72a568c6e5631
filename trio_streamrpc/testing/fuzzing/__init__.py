"""Fuzzing a service: calls of any shape, and oracles that tell what a service must not do."""

import trio_streamrpc.testing.strategies  # noqa: F401  # says at once that Hypothesis is missing
