#!/bin/sh
# Writes the exporter's password file, in memory: the addresses that may be sent the password, and no other. The exporter connects
# to whatever address a request names; one that is not in the file gets no password.
set -eu

umask 077
password=$(tr -d '\r' </run/secrets/REDIS_PASSWORD | sed 's/[\\"]/\\&/g')
{
    printf '{'
    separator=
    for address in redis-primary:6379 redis-replica:6379 redis-sentinel-1:26379 redis-sentinel-2:26379 redis-sentinel-3:26379; do
        printf '%s"redis://%s": "%s"' "$separator" "$address" "$password"
        separator=', '
    done
    printf '}\n'
} > /run/redis-exporter/passwords.json

# no address: Prometheus names the nodes. Values of keys are the users' data: they are never exported, whoever asks
exec /redis_exporter \
    --redis.addr= \
    --redis.password-file=/run/redis-exporter/passwords.json \
    --disable-exporting-key-values \
    --web.listen-address=redis-exporter.monitoring:9121 \
    --log-format=json
