#!/bin/bash
# Starts PostgreSQL; an empty data folder is initialised first: initdb, the database, then /docker-entrypoint-initdb.d
# against a server that listens on the Unix socket only.
set -Eeuo pipefail

fail() {
    echo "error: $1" >&2
    exit 1
}

# from_file NAME DEFAULT: exports NAME from NAME, from the file that NAME_FILE names, or from the default.
from_file() {
    local name=$1 file=$1_FILE value
    if [ -n "${!name-}" ] && [ -n "${!file-}" ]; then
        fail "$name and $file are both set; set one"
    fi
    if [ -n "${!file-}" ]; then
        [ -r "${!file}" ] || fail "$file names ${!file}, which user $(id -u) cannot read"
        value=$(<"${!file}")
    else
        value=${!name-$2}
    fi
    export "$name=$value"
    unset "$file"
}

read_settings() {
    from_file POSTGRES_PASSWORD ''
    from_file POSTGRES_USER postgres
    from_file POSTGRES_DB "$POSTGRES_USER"
    from_file POSTGRES_INITDB_ARGS ''
    : "${POSTGRES_HOST_AUTH_METHOD:=}"
}

make_folders() {
    mkdir -p "$PGDATA"
    chmod 0700 "$PGDATA" || :
    if [ "$(id -u)" = 0 ]; then
        find /var/lib/postgresql "$PGDATA" \! -user postgres -exec chown postgres '{}' +
    fi
}

initialise() {
    local options=()
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        fail 'the data folder is empty and no password is set; set POSTGRES_PASSWORD_FILE or POSTGRES_PASSWORD'
    fi
    if [ -n "${POSTGRES_INITDB_WALDIR-}" ]; then
        options+=(--waldir "$POSTGRES_INITDB_WALDIR")
    fi
    eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") "${options[@]}"' \
        "$POSTGRES_INITDB_ARGS"
    local method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption "$@")}
    printf '\nhost all all all %s\n' "$method" >> "$PGDATA/pg_hba.conf"
}

# The name is part of the contract: scripts of /docker-entrypoint-initdb.d may call it.
docker_process_sql() {
    local database=()
    [ -z "$POSTGRES_DB" ] || database=(--dbname "$POSTGRES_DB")
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc "${database[@]}" "$@"
}

create_database() {
    [ "$POSTGRES_DB" != postgres ] || return 0
    POSTGRES_DB=postgres docker_process_sql --set db="$POSTGRES_DB" <<< 'CREATE DATABASE :"db";'
}

run_scripts() {
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        case "$script" in
        *.sh)
            echo "running $script"
            if [ -x "$script" ]; then "$script"; else . "$script"; fi
            ;;
        *.sql) echo "running $script" && docker_process_sql --file "$script" ;;
        *.sql.gz) echo "running $script" && gunzip --stdout "$script" | docker_process_sql ;;
        *.sql.xz) echo "running $script" && xz --decompress --stdout "$script" | docker_process_sql ;;
        *.sql.zst) echo "running $script" && zstd --decompress --stdout "$script" | docker_process_sql ;;
        '/docker-entrypoint-initdb.d/*') ;;
        *) echo "ignoring $script" ;;
        esac
    done
}

# temporary_server start|stop [arguments of postgres]
temporary_server() {
    local action=$1
    shift
    if [ "$action" = stop ]; then
        pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
        return
    fi
    local options
    options=$(printf '%q ' "$@" -c listen_addresses= -p "${PGPORT:-5432}")
    NOTIFY_SOCKET='' pg_ctl --pgdata "$PGDATA" --options "$options" --wait start
}

wants_information() {
    local argument
    for argument; do
        case "$argument" in
        --help | '-?' | --version | -V | --describe-config | -C) return 0 ;;
        esac
    done
    return 1
}

main() {
    if [ "${1-}" = "" ] || [ "${1:0:1}" = - ]; then
        set -- postgres "$@"
    fi
    if [ "$1" = postgres ] && ! wants_information "$@"; then
        make_folders
        if [ "$(id -u)" = 0 ]; then
            exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
        fi
        if [ ! -s "$PGDATA/PG_VERSION" ]; then
            shift
            read_settings
            initialise "$@"
            export PGPASSWORD=${PGPASSWORD-$POSTGRES_PASSWORD}
            temporary_server start "$@"
            create_database
            run_scripts
            temporary_server stop
            unset PGPASSWORD
            set -- postgres "$@"
            echo 'PostgreSQL is initialised and starts now'
        else
            echo 'the data folder holds a database; it is left as it is'
        fi
    fi
    exec "$@"
}

main "$@"
