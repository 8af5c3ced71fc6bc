"""A stand-in for the `docker` program: answers as told, late, half, or not at all.

It is put first on PATH, so that the generated commands run as they are. It shows in seconds what a real engine shows
only when it is broken. What needs no engine (`docker compose config`) is passed on to the real client.
"""
