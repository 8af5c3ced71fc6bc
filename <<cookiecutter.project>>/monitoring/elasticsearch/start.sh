#!/bin/bash
# Puts the configuration together in memory, makes the users from the secrets and hands over to the image's entrypoint.
# A changed secret takes effect with the next start.
set -euo pipefail

config=$ES_PATH_CONF
umask 077
mkdir -p "$config"
cp -R /usr/share/elasticsearch/config/. "$config"
cp /etc/elasticsearch-stack/elasticsearch.yml /etc/elasticsearch-stack/roles.yml "$config"
# it would fetch databases from the internet, to which there is no way. Without the module the setting is unknown, and an error
if [ -d /usr/share/elasticsearch/modules/ingest-geoip ]; then
    echo "ingest.geoip.downloader.enabled: false" >> "$config/elasticsearch.yml"
fi

# the file realm's {SSHA256}: base64 of 8 bytes of salt, then base64 of SHA-256 over password and salt. Its usual slow hash
# protects passwords that people choose; these are random and 32 characters or more
hash() { # PASSWORD
    local salt digest
    salt=$(od -An -N4 -tx1 /dev/urandom | tr -d ' ')
    digest=$(printf '%s%s' "$1" "$salt" | sha256sum | cut -c -64 | sed 's/../\\x&/g')
    printf '{SSHA256}%s%s' "$(printf '%s' "$salt" | base64)" "$(printf '%b' "$digest" | base64)"
}

: > "$config/users"
: > "$config/users_roles"
user() { # NAME ROLE SECRET
    printf '%s:%s\n' "$1" "$(hash "$(tr -d '\r' <"/run/secrets/$3")")" >> "$config/users"
    printf '%s:%s\n' "$2" "$1" >> "$config/users_roles"
}
user elastic superuser ELASTIC_PASSWORD
user kibana_system kibana_system KIBANA_PASSWORD
user log_shipper log_shipper LOG_SHIPPER_PASSWORD

# for the health check, so that no command line bears a password
printf 'user = "log_shipper:%s"\n' "$(tr -d '\r' </run/secrets/LOG_SHIPPER_PASSWORD | sed 's/[\\"]/\\&/g')" > /run/elasticsearch/probe

exec /usr/local/bin/docker-entrypoint.sh eswrapper
