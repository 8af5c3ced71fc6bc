#!/bin/sh
# redis-cli with every right, for people who may run commands in the container, of a node or of a sentinel:
#   docker exec -it <redis-primary> sh /etc/redis/cli.sh [COMMAND …]
set -eu
if [ -e /run/redis/operator ]; then
    REDISCLI_AUTH=$(cat /run/redis/operator)
    set -- --user operator "$@"
else
    REDISCLI_AUTH=$(tr -d '\r' </run/secrets/REDIS_SENTINEL_PASSWORD)
    set -- --user sentinel -p 26379 "$@"
fi
export REDISCLI_AUTH
exec redis-cli --no-auth-warning "$@"
