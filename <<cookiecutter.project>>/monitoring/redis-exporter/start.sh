#!/bin/sh
# The exporter's own password file is a JSON map of addresses; the secret is one password. It stays in this process' environment.
set -eu

REDIS_PASSWORD=$(tr -d '\r' </run/secrets/REDIS_PASSWORD)
export REDIS_PASSWORD

# no address: Prometheus names the nodes
exec /redis_exporter --redis.addr= --log-format=json
