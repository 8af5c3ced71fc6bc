#!/bin/sh
# health.sh primary|replica: exit 0 when this node answers and does what its name says.
set -eu

REDISCLI_AUTH=$(cat /run/secrets/REDIS_PASSWORD)
export REDISCLI_AUTH
state=$(timeout 4 redis-cli --no-auth-warning info replication | tr -d '\r')

case "${1-}" in
primary) wanted=role:master ;;
replica) wanted=master_link_status:up ;;
*) echo 'usage: health.sh primary|replica' >&2 && exit 2 ;;
esac
if ! echo "$state" | grep -qx "$wanted"; then
    echo "$state" | head -n 5
    exit 1
fi
echo ok
