#!/bin/sh
# sentinel.sh NAME: brings what this sentinel knew together with today's settings and passwords, and starts it.
#
# A sentinel writes what it learns and how it has voted into its own configuration file: who is primary, which election that came
# from, who the others are. The file is on a volume, because one that forgot its vote could give a second one in the same election,
# and because the nodes ask it for their role after everything was off.
#
# Two users here as well. `default` is what services, nodes, health and exporter log in as, with REDIS_PASSWORD: it may ask.
# `sentinel`, with REDIS_SENTINEL_PASSWORD, is what the sentinels are to each other and to the nodes: it may change roles.
set -eu

NAME=${1:?usage: sentinel.sh NAME}
STATE=/data/sentinel.conf
umask 077

fail() {
    echo "sentinel: $1" >&2
    exit 1
}

# shellcheck source=infrastructure/redis/passwords.sh
. /etc/redis/passwords.sh

for secret in REDIS_PASSWORD REDIS_SENTINEL_PASSWORD; do
    [ -s "/run/secrets/$secret" ] || fail "secret $secret is missing or empty; run invoke secret-init"
done
password=$(tr -d '\r' </run/secrets/REDIS_PASSWORD)
own=$(tr -d '\r' </run/secrets/REDIS_SENTINEL_PASSWORD)

# The node that says that it is the primary, if one does.
acting() {
    for node in redis-primary redis-replica; do
        if REDISCLI_AUTH=$password timeout 1 redis-cli -h "$node" --no-auth-warning role 2>/dev/null | grep -qx master; then
            echo "$node"
            return
        fi
    done
    false
}

# What it knew. With an empty volume: what the others say, what is so, or how a new stack begins.
known=$(grep -E '^sentinel (myid|monitor|config-epoch|leader-epoch|current-epoch|known-)' "$STATE" 2>/dev/null) || known=""
if ! echo "$known" | grep -q '^sentinel monitor stack '; then
    primary=$(sh /etc/redis/primary.sh) || primary=$(acting) || primary=redis-primary
    known="sentinel monitor stack $primary 6379 2"
fi
# Of a replica it learns when it asks the primary, every ten seconds. A primary that is lost before that says nothing, and nobody
# would ever be promoted; so it is told.
if ! echo "$known" | grep -q '^sentinel known-replica '; then
    case $known in
    *"monitor stack redis-primary "*) replica=redis-replica ;;
    *) replica=redis-primary ;;
    esac
    known="$known
sentinel known-replica stack $replica 6379"
fi

# Each is a little more patient than the one before: those that lose sight of the primary at the same moment would each vote for
# themselves, and nobody would win.
patience=$((DOWN_AFTER_MILLISECONDS + 300 * (${NAME##*-} - 1)))
echo "$patience" >/data/patience

# `monitor` comes first: every other line about the stack refers to it
{
    cat /etc/redis/sentinel.conf
    echo "sentinel announce-ip $NAME"
    echo "user default reset on #$(digest "$password") &* $ASKS"
    echo "user sentinel reset on #$(digest "$own") &* +@all"
    SENTINEL=yes sh /etc/redis/users.sh config
    echo "sentinel sentinel-user sentinel"
    printf 'sentinel sentinel-pass %s\n' "$(quoted "$own")" # `echo` of this shell would change a backslash
    echo "$known" | grep '^sentinel monitor '
    echo "sentinel auth-user stack sentinel"
    printf 'sentinel auth-pass stack %s\n' "$(quoted "$own")"
    echo "sentinel down-after-milliseconds stack $patience"
    # a promotion takes less than a second; an election without a winner is repeated after twice this time
    echo "sentinel failover-timeout stack 3000"
    echo "$known" | grep -v '^sentinel monitor ' || true
} >"$STATE.new"
mv "$STATE.new" "$STATE"

exec redis-server "$STATE" --sentinel
