#!/bin/bash
# health.sh primary|replica: exit 0 when this server does what its name says.
# health.sh node: exit 0 when it does what Patroni wants it to: it holds the lease, or streams from whoever does.
set -euo pipefail

if [ "${1-}" = node ]; then
    exec 3<>/dev/tcp/127.0.0.1/8008
    printf 'GET /readiness HTTP/1.0\r\n\r\n' >&3
    read -r -t 4 _ status _ <&3
    [ "$status" = 200 ] && exit 0
    echo "neither primary nor a standby that streams (Patroni says $status)"
    exit 1
fi

# On TCP, for while the volume is being initialised there is a server on the socket already.
pg_isready --quiet --host=127.0.0.1 --timeout=3

case "${1-}" in
primary) check="SELECT CASE WHEN pg_is_in_recovery() THEN 'is a standby, not the primary' ELSE 'ok' END" ;;
replica) check="SELECT CASE WHEN NOT pg_is_in_recovery() THEN 'was promoted, is no replica any more'
    WHEN NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 'does not receive from the primary'
    ELSE 'ok' END" ;;
*) echo 'usage: health.sh primary|replica|node' >&2 && exit 2 ;;
esac

answer=$(PGCONNECT_TIMEOUT=3 psql --no-psqlrc --no-password --tuples-only --no-align --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --command="$check")
echo "$answer"
[ "$answer" = ok ]
