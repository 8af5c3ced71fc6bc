#!/bin/sh
# health.sh primary|replica|node|sentinel: exit 0 when this container answers and does its work. A node, of which sentinels decide the
# role, is well when it is a primary, or a replica whose link is up.
set -eu

ask() {
    timeout 4 redis-cli --no-auth-warning "$@" | tr -d '\r'
}

REDISCLI_AUTH=$(tr -d '\r' </run/secrets/REDIS_PASSWORD)
export REDISCLI_AUTH
case "${1-}" in
primary) wanted=role:master ;;
replica) wanted=master_link_status:up ;;
node) wanted='role:master|master_link_status:up' ;;
sentinel)
    answer=$(ask -p 26379 ping)
    [ "$answer" = PONG ] || { echo "$answer" && exit 1; }
    echo ok
    exit
    ;;
*) echo 'usage: health.sh primary|replica|node|sentinel' >&2 && exit 2 ;;
esac

state=$(ask info replication)
if ! echo "$state" | grep -qxE "$wanted"; then
    echo "$state" | head -n 5
    exit 1
fi
# the guard says every second that it is there; without it, a primary that lost its replica would never take writes again
if [ "$1" = node ] && [ -z "$(find /run/redis/guard -newermt '-15 seconds')" ]; then
    echo 'guard.sh does not run'
    exit 1
fi
echo ok
