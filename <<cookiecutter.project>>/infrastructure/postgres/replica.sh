#!/bin/bash
# Starts the streaming replica: copies the primary when the volume is empty, then follows it. Arguments go to the server.
#
# To build the replica anew (it fell too far behind, or the primary was restored): stop it, remove its volume, start it.
set -euo pipefail

PRIMARY=postgres-primary
SLOT=postgres_replica # as Patroni would call it, so that the pair can go over to automatic failover and back
PASSFILE=/var/run/postgresql/replicator.pgpass
COPY=$(dirname "$PGDATA")/.copying

say() {
    echo "replica: $*" >&2
}

# In memory, and new at every start, so a changed password only needs a restart. In this format \ and : are special.
write_passfile() {
    local password
    password=$(</run/secrets/REPLICATION_PASSWORD)
    password=${password//\\/\\\\}
    (umask 077 && printf '*:*:*:replicator:%s\n' "${password//:/\\:}" >"$PASSFILE")
}

# replication_command TEXT: what the primary answers to a command of the replication protocol.
replication_command() {
    psql --no-psqlrc --no-password --tuples-only --no-align --command="$1" \
        "host=$PRIMARY user=replicator passfile=$PASSFILE replication=true connect_timeout=3"
}

# As the role and for the purpose that will follow: for a stranger the primary would log a failed login.
primary_answers() {
    pg_isready --quiet --timeout=3 --dbname="host=$PRIMARY user=replicator replication=true"
}

wait_for_primary() {
    local waited=0
    until primary_answers; do
        ((waited++ % 30)) || say "waiting for $PRIMARY"
        sleep 1
    done
}

# A restored primary has no slots: they are not part of a backup.
ensure_slot() {
    if [ "$(replication_command "READ_REPLICATION_SLOT $SLOT" | cut -d'|' -f1)" != physical ]; then
        say "creating the replication slot $SLOT on $PRIMARY"
        replication_command "CREATE_REPLICATION_SLOT $SLOT PHYSICAL RESERVE_WAL" >/dev/null
    fi
}

# Beside the data folder and renamed when complete, so a copy that was interrupted is never taken for a database.
copy_primary() {
    say "copying $PRIMARY"
    rm -rf "$COPY"
    pg_basebackup --pgdata="$COPY" --write-recovery-conf --wal-method=stream --checkpoint=fast --slot="$SLOT" --no-password \
        --dbname="host=$PRIMARY user=replicator passfile=$PASSFILE application_name=postgres-replica connect_timeout=5"
    # an empty mount point or the remains of a first start that failed
    rm -rf "$PGDATA"
    mv "$COPY" "$PGDATA"
    say "copied $(du -sh "$PGDATA" | cut -f1)"
}

# Another cluster's data cannot be followed, and may be all that is left of a lost primary: never overwrite it.
check_same_cluster() {
    local here there
    here=$(pg_controldata "$PGDATA" | sed -n 's/^Database system identifier: *//p')
    there=$(replication_command IDENTIFY_SYSTEM | cut -d'|' -f1)
    if [ "$here" != "$there" ]; then
        say "this volume holds database $here, $PRIMARY is $there: it was set up anew or restored." \
            "If the primary is right, remove the replica's volume and start again; if not, the data here may be the only copy."
        sleep 30 # the restart policy would otherwise repeat this line every second
        exit 1
    fi
}

write_passfile
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$(dirname "$PGDATA")"
    wait_for_primary
    ensure_slot
    copy_primary
elif [ ! -e "$PGDATA/standby.signal" ]; then
    say "was promoted and starts as a primary"
elif primary_answers; then
    check_same_cluster
    ensure_slot
else
    say "$PRIMARY does not answer; serving reads until it does"
fi
exec postgres "$@"
