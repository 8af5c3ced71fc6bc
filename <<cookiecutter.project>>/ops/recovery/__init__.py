"""Backups as a part of the stack: WAL of PostgreSQL as it is written, entries of a catalogue, and the proof of them.

This package runs in the containers of docker-compose.backup.yml. It reads servers over the network and volumes
read-only, knows no engine, and needs the standard library and ops.base only. The commands on the host call it by
`docker exec`.
"""
