"""A real Kubernetes on one machine: several nodes as sets of Linux namespaces, the programs built from source.

`python -m tests.cluster` starts and stops it; `programs`, `nodes`, `registry`, `control_plane` and `workers` are its
parts.
"""
