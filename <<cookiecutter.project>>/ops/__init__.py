"""What the commands in tasks.py do: one concern a module, plain functions, effects at the edge."""
