"""Scheduled jobs: when they run, for the commands and the scheduler, and the scheduler (`python -m ops.scheduler`).

It imports nothing else of ops/: the scheduler's image holds this package alone.
"""
