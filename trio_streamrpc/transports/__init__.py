"""Whole messages over something: the only place that knows transport libraries' exceptions."""
