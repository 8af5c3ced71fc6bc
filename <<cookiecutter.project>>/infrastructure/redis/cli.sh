#!/bin/sh
# redis-cli with every right, for people who may run commands in the container:
#   docker exec -it <redis-primary> sh /etc/redis/cli.sh [COMMAND …]
set -eu
REDISCLI_AUTH=$(cat /run/redis/operator)
export REDISCLI_AUTH
exec redis-cli --no-auth-warning --user operator "$@"
