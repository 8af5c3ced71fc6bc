#!/bin/sh
# start.sh NODE: finds out which role this node has, writes the configuration into memory and starts the server.
#
# Without sentinels (REDIS_SENTINELS is empty) redis-primary is the primary and redis-replica follows it. With them a name says
# nothing: the node asks them, waits until more than half agree, and never takes a role by itself.
#
# Two users. `default` is what services, exporter, backup and replica log in as, with REDIS_PASSWORD; it cannot flush,
# reconfigure, debug or stop the server, nor run KEYS, which blocks everybody. `operator` can do all of it; its password is
# random, made at every start, and only readable inside the container: see cli.sh. With sentinels there is a third, theirs; and services
# have users of their own (users.sh). The
# server is started directly, not by the image's entrypoint, which would load modules that nobody here uses.
set -eu

NODE=${1-}
SENTINELS=${REDIS_SENTINELS-}
RUN=/run/redis
# How long a primary that was restarted leaves the sentinels to give its role to the replica. They need about five seconds.
YIELD_SECONDS=30
umask 077

fail() {
    echo "redis: $1" >&2
    exit 1
}

# shellcheck source=infrastructure/redis/passwords.sh
. /etc/redis/passwords.sh

# Whether the other node has followed a primary since it was started and has lost it, or has just taken its place. It then holds
# every write that WAIT has confirmed, while the append-only file here may lack the last two seconds.
other_is_ahead() {
    REDISCLI_AUTH=$password timeout 1 redis-cli -h "$other" --no-auth-warning info replication 2>/dev/null |
        tr -d '\r' | grep -qE '^(role:master|master_link_down_since_seconds:[0-9]+)$'
}

# Sets `primary` as soon as the sentinels agree on it.
ask_sentinels() {
    tries=0
    while true; do
        # looked at first, so that a promotion in between is not missed
        ahead=false
        if other_is_ahead; then ahead=true; fi
        if ! primary=$(sh /etc/redis/primary.sh); then
            echo "redis: waiting until the sentinels agree who is primary" >&2
        elif [ "$primary" = "$NODE" ] && [ "$ahead" = true ] && [ "$tries" -lt "$YIELD_SECONDS" ]; then
            echo "redis: $other has what was written last; waiting until the sentinels make it the primary" >&2
            tries=$((tries + 1))
        else
            return 0
        fi
        sleep 1
    done
}

case "$NODE" in
redis-primary) other=redis-replica ;;
redis-replica) other=redis-primary ;;
*) fail 'usage: start.sh redis-primary|redis-replica' ;;
esac
[ -s /run/secrets/REDIS_PASSWORD ] || fail 'secret REDIS_PASSWORD is missing or empty; run invoke secret-init'
password=$(tr -d '\r' </run/secrets/REDIS_PASSWORD)
operator=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

# -@dangerous, then what is harmless or needed of it: statistics, replication, backup
allowed="+@all -@dangerous +info +role +slowlog +latency +config|get +client|list +client|info"
allowed="$allowed +lastsave +bgsave +psync +sync +replconf"

if [ -n "$SENTINELS" ]; then
    trap 'exit 0' TERM # nothing has been started yet
    ask_sentinels
else
    primary=$(sh /etc/redis/primary.sh)
fi

{
    echo "include /etc/redis/common.conf"
    echo "maxmemory $MAXMEMORY"
    echo "user default reset on #$(digest "$password") ~* &* $allowed"
    echo "user operator reset on #$(digest "$operator") ~* &* +@all"
    SENTINEL='' sh /etc/redis/users.sh config
    # known to both nodes, so that either can follow the other
    echo "masteruser default"
    printf 'masterauth %s\n' "$(quoted "$password")" # `echo` of this shell would change a backslash
    echo "replica-announce-ip $NODE"
    if [ -n "$SENTINELS" ]; then
        [ -s /run/secrets/REDIS_SENTINEL_PASSWORD ] ||
            fail 'secret REDIS_SENTINEL_PASSWORD is missing or empty; run invoke secret-init'
        theirs=$(digest "$(tr -d '\r' </run/secrets/REDIS_SENTINEL_PASSWORD)")
        echo "user sentinel reset on #$theirs &* +ping +info +role +publish +subscribe +multi +exec +replicaof +slaveof" \
            "+config|rewrite +client|setname +client|kill +script|kill"
        echo "include /etc/redis/failover.conf"
    fi
    if [ "$primary" != "$NODE" ]; then
        echo "replicaof $primary 6379"
    fi
} >"$RUN/redis.conf"
printf %s "$operator" >"$RUN/operator"

if [ -n "$SENTINELS" ]; then
    sh /etc/redis/guard.sh "$NODE" &
fi

exec redis-server "$RUN/redis.conf"
