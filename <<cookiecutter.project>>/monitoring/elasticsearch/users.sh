#!/bin/bash
# Makes the users of Elasticsearch's file realm from the secrets: at the start, and again for a changed password. The server reads
# these files again within five seconds.
set -euo pipefail

config=$ES_PATH_CONF
umask 077

# the file realm's {SSHA256}: base64 of 8 bytes of salt, then base64 of SHA-256 over password and salt. Its usual slow hash
# protects passwords that people choose; these are random and 32 characters or more
hash() { # PASSWORD
    local salt digest
    salt=$(od -An -N4 -tx1 /dev/urandom | tr -d ' ')
    digest=$(printf '%s%s' "$1" "$salt" | sha256sum | cut -c -64 | sed 's/../\\x&/g')
    printf '{SSHA256}%s%s' "$(printf '%s' "$salt" | base64)" "$(printf '%b' "$digest" | base64)"
}

: > "$config/users.new"
: > "$config/users_roles.new"
user() { # NAME ROLE SECRET
    printf '%s:%s\n' "$1" "$(hash "$(tr -d '\r' <"/run/secrets/$3")")" >> "$config/users.new"
    printf '%s:%s\n' "$2" "$1" >> "$config/users_roles.new"
}
user elastic superuser ELASTIC_PASSWORD
user kibana_system kibana_system KIBANA_PASSWORD
user log_shipper log_shipper LOG_SHIPPER_PASSWORD
mv -f "$config/users_roles.new" "$config/users_roles"
mv -f "$config/users.new" "$config/users"

# for the health check, so that no command line bears a password
printf 'user = "log_shipper:%s"\n' "$(tr -d '\r' </run/secrets/LOG_SHIPPER_PASSWORD | sed 's/[\\"]/\\&/g')" > /run/elasticsearch/probe
