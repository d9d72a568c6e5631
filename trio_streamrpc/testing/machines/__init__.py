"""State machines for Hypothesis: two of our endpoints, or one of ours against something else."""

import trio_streamrpc.testing.strategies  # noqa: F401  # says at once that Hypothesis is missing
