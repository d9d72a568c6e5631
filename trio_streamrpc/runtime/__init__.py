"""One connection alive under Trio."""
