#!/bin/bash
# Starts a node of the plain pair as what its data says: a primary, or a standby of the other one. Arguments go to the server.
# node.sh passfile: a running node takes a changed REPLICATION_PASSWORD.
#
# Who is primary a person decides (invoke failover, invoke promote). A node never takes the role by itself, and one that was the
# primary while the other was promoted comes back as its standby.
# To build a standby anew: stop it, remove its volume, start it.
set -euo pipefail

SLOT=${NODE//-/_} # as Patroni would call it, so that the pair can go over to automatic failover and back
PASSFILE=/var/run/postgresql/replicator.pgpass
COPY=$(dirname "$PGDATA")/.copying
FENCED=$(dirname "$PGDATA")/.fenced # left by `invoke promote`: whatever the data says, this is no primary any more
PLAIN=$(dirname "$PGDATA")/.plain # for failover.py: what etcd may still know of these nodes is of before
SOURCE="host=$PEER user=replicator passfile=$PASSFILE application_name=$NODE connect_timeout=3"

say() {
    echo "node: $*" >&2
}

# In memory, and new at every start. The server reads it whenever it connects. In this format \ and : are special.
write_passfile() {
    local password
    password=$(tr -d '\r' </run/secrets/REPLICATION_PASSWORD)
    password=${password//\\/\\\\}
    (umask 077 && printf '*:*:*:replicator:%s\n' "${password//:/\\:}" >"$PASSFILE.new" && mv -f "$PASSFILE.new" "$PASSFILE")
}

# ask OPTIONS TEXT: what the other node answers.
ask() {
    psql --no-psqlrc --no-password --tuples-only --no-align --command="$2" "$SOURCE $1" 2>/dev/null
}

peer_is_primary() {
    [ "$(ask dbname=postgres 'SELECT pg_is_in_recovery()')" = f ]
}

wait_for_primary() {
    local waited=0
    until peer_is_primary; do
        ((waited++ % 30)) || say "waiting for $PEER to be the primary"
        sleep 1
    done
}

# A restored primary has no slots: they are not part of a backup.
ensure_slot() {
    if [ "$(ask replication=true "READ_REPLICATION_SLOT $SLOT" | cut -d'|' -f1)" != physical ]; then
        say "creating the replication slot $SLOT on $PEER"
        ask replication=true "CREATE_REPLICATION_SLOT $SLOT PHYSICAL RESERVE_WAL" >/dev/null
    fi
}

# Beside the data folder and renamed when complete, so a copy that was interrupted is never taken for a database.
copy_primary() {
    say "copying $PEER"
    rm -rf "$COPY"
    mkdir -p "$(dirname "$PGDATA")"
    ensure_slot
    pg_basebackup --pgdata="$COPY" --wal-method=stream --checkpoint=fast --slot="$SLOT" --no-password --dbname="$SOURCE"
    touch "$COPY/standby.signal"
    # an empty mount point or the remains of a first start that failed
    rm -rf "$PGDATA"
    mv "$COPY" "$PGDATA"
    say "copied $(du -sh "$PGDATA" | cut -f1)"
}

control() {
    pg_controldata "$PGDATA" | sed -n "s/^$1: *//p"
}

# Another cluster's data cannot be followed, and may be all that is left of a lost primary: never overwrite it.
check_same_cluster() {
    local here there
    here=$(control 'Database system identifier')
    there=$(ask replication=true IDENTIFY_SYSTEM | cut -d'|' -f1)
    if [ "$here" != "$there" ]; then
        say "this volume holds database $here, $PEER is $there: it was set up anew or restored." \
            "If $PEER is right, remove the volume of $NODE and start again; if not, the data here may be the only copy."
        sleep 30 # the restart policy would otherwise repeat this line every second
        exit 1
    fi
}

# What an old primary had and the new one never got is given up: the history that goes on is the other one's.
give_way() {
    say "$PEER was promoted: going back to where its history branched off"
    touch "$FENCED" # an interruption must not leave something that would start as a primary
    # pg_rewind first lets a crashed server recover, which a standby would not; process 1 of the last container is no more
    rm -f "$PGDATA/standby.signal" "$PGDATA/postmaster.pid"
    if ! pg_rewind --target-pgdata="$PGDATA" --source-server="$SOURCE dbname=postgres" \
        --config-file=/etc/postgresql/common.conf; then
        copy_primary
    fi
    touch "$PGDATA/standby.signal"
    rm "$FENCED"
}

# serve_as_standby ARGUMENTS
serve_as_standby() {
    exec postgres "$@" --primary-conninfo="$SOURCE" --primary-slot-name="$SLOT"
}

write_passfile
[ "${1-}" != passfile ] || exit 0
[ ! -s "$PGDATA/PG_VERSION" ] || touch "$PLAIN"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ "$BEGINS" = true ] && ! peer_is_primary; then
        exec docker-entrypoint.sh postgres "$@"
    fi
    wait_for_primary
    copy_primary
elif [ -e "$FENCED" ]; then
    wait_for_primary
    check_same_cluster
    give_way
    ensure_slot
elif [ -e "$PGDATA/standby.signal" ]; then
    if peer_is_primary; then
        check_same_cluster
        ensure_slot
    else
        say "$PEER does not answer as primary; serving reads until it does"
    fi
elif peer_is_primary; then
    check_same_cluster
    give_way
    ensure_slot
else
    exec postgres "$@"
fi
serve_as_standby "$@"
