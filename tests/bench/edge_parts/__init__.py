"""What tests/bench/edge.py measures, and what it measures it with."""
