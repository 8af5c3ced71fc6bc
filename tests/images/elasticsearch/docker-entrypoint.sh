#!/bin/bash
# Starts the server; any other command runs as it is.
set -e
umask 0002
[ "${1:-}" = eswrapper ] || exec "$@"
exec /usr/share/elasticsearch/bin/elasticsearch "${@:2}"
