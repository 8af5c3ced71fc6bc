#!/bin/bash
# Writes the settings that are secrets beside kibana.yml, in memory, and starts Kibana with both.
set -euo pipefail

key() { # PURPOSE [SECRET]: a key of its own for each purpose, all from the one secret
    printf '%s:%s' "$1" "$(tr -d '\r' <"/run/secrets/${2:-KIBANA_ENCRYPTION_KEY}")" | sha256sum | cut -c -64
}

umask 077
{
    printf 'elasticsearch.password: "%s"\n' "$(tr -d '\r' </run/secrets/KIBANA_PASSWORD | sed 's/[\\"]/\\&/g')"
    printf 'xpack.security.encryptionKey: "%s"\n' "$(key security)"
    printf 'xpack.encryptedSavedObjects.encryptionKey: "%s"\n' "$(key saved-objects)"
    if [ -s /run/secrets/KIBANA_ENCRYPTION_KEY_PREVIOUS ]; then
        printf 'xpack.encryptedSavedObjects.keyRotation.decryptionOnlyKeys: ["%s"]\n' \
            "$(key saved-objects KIBANA_ENCRYPTION_KEY_PREVIOUS)"
    fi
    printf 'xpack.reporting.encryptionKey: "%s"\n' "$(key reporting)"
} > /run/kibana/secrets.yml

exec /usr/local/bin/kibana-docker --config /etc/kibana-stack/kibana.yml --config /run/kibana/secrets.yml
