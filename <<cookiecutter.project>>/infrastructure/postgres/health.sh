#!/bin/bash
# health.sh primary|replica: exit 0 when this server does what its name says.
set -euo pipefail

# On TCP, for while the volume is being initialised there is a server on the socket already.
pg_isready --quiet --host=127.0.0.1 --timeout=3

case "${1-}" in
primary) check="SELECT CASE WHEN pg_is_in_recovery() THEN 'is a standby, not the primary' ELSE 'ok' END" ;;
replica) check="SELECT CASE WHEN NOT pg_is_in_recovery() THEN 'was promoted, is no replica any more'
    WHEN NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN 'does not receive from the primary'
    ELSE 'ok' END" ;;
*) echo 'usage: health.sh primary|replica' >&2 && exit 2 ;;
esac

answer=$(PGCONNECT_TIMEOUT=3 psql --no-psqlrc --no-password --tuples-only --no-align --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --command="$check")
echo "$answer"
[ "$answer" = ok ]
