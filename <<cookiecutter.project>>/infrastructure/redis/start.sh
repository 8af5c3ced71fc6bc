#!/bin/sh
# start.sh primary|replica: writes the configuration into memory and starts the server.
#
# Two users. `default` is what services, exporter, backup and replica log in as, with REDIS_PASSWORD; it cannot flush,
# reconfigure, debug or stop the server, nor run KEYS, which blocks everybody. `operator` can do all of it; its password is
# random, made at every start, and only readable inside the container: see cli.sh. The server is started directly, not by the
# image's entrypoint, which would load modules that nobody here uses.
set -eu

ROLE=${1-}
RUN=/run/redis
umask 077

fail() {
    echo "redis: $1" >&2
    exit 1
}

digest() {
    printf %s "$1" | sha256sum | cut -d' ' -f1
}

# quoted TEXT: as a string of the configuration file
quoted() {
    printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"
}

case "$ROLE" in
primary) source="" ;;
replica) source="replicaof redis-primary 6379" ;;
*) fail 'usage: start.sh primary|replica' ;;
esac
[ -s /run/secrets/REDIS_PASSWORD ] || fail 'secret REDIS_PASSWORD is missing or empty; run invoke secret-init'
password=$(cat /run/secrets/REDIS_PASSWORD)
operator=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

# -@dangerous, then what is harmless or needed of it: statistics, replication, backup
allowed="+@all -@dangerous +info +role +slowlog +latency +config|get +client|list +client|info"
allowed="$allowed +lastsave +bgsave +psync +sync +replconf"

# masteruser and masterauth are known to both nodes, so that either can follow the other
printf '%s\n' \
    "include /etc/redis/common.conf" \
    "maxmemory $MAXMEMORY" \
    "user default reset on #$(digest "$password") ~* &* $allowed" \
    "user operator reset on #$(digest "$operator") ~* &* +@all" \
    "masteruser default" \
    "masterauth $(quoted "$password")" \
    "replica-announce-ip redis-$ROLE" \
    "$source" >"$RUN/redis.conf"
printf %s "$operator" >"$RUN/operator"

exec redis-server "$RUN/redis.conf"
