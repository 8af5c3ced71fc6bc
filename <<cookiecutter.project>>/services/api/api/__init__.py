"""Gateway, and the items."""
