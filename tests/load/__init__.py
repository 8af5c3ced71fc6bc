"""A load that notices every lost request: generator, the network it comes through, and the book kept of its writes.

Read generator.py first. Nothing here knows Docker except ledger.py, which looks the writes up afterwards.
"""
