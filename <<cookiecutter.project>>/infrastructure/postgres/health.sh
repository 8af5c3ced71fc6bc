#!/bin/bash
# health.sh server: exit 0 when this server takes writes, or streams from the one that does.
# health.sh patroni: exit 0 when it does what Patroni wants it to: it holds the lease, or streams from whoever does.
set -euo pipefail

if [ "$1" = patroni ]; then
    exec 3<>/dev/tcp/127.0.0.1/8008
    printf 'GET /readiness HTTP/1.0\r\n\r\n' >&3
    read -r -t 4 _ status _ <&3
    [ "$status" = 200 ] && exit 0
    echo "neither primary nor a standby that streams (Patroni says $status)"
    exit 1
fi

# On TCP, for while the volume is being initialised there is a server on the socket already.
pg_isready --quiet --host=127.0.0.1 --timeout=3

check="SELECT CASE WHEN NOT pg_is_in_recovery() THEN 'ok'
    WHEN NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 'does not receive from the primary'
    ELSE 'ok' END"

answer=$(PGCONNECT_TIMEOUT=3 psql --no-psqlrc --no-password --tuples-only --no-align --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --command="$check")
echo "$answer"
[ "$answer" = ok ]
