"""State machines for Hypothesis: two of our endpoints, or one of ours against something else."""
