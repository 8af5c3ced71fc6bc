#!/bin/bash
# Root gives its rights up; settings that the official image refuses are refused here too.
set -euo pipefail

for setting in RABBITMQ_DEFAULT_PASS_FILE RABBITMQ_DEFAULT_USER_FILE RABBITMQ_VM_MEMORY_HIGH_WATERMARK; do
    if [ -n "${!setting-}" ]; then
        echo "error: $setting is not supported; use a configuration file" >&2
        exit 1
    fi
done

if [[ ${1-} == rabbitmq* && $(id -u) == 0 ]]; then
    if [ "$1" = rabbitmq-server ]; then
        find /var/lib/rabbitmq \! -user rabbitmq -exec chown rabbitmq '{}' +
    fi
    exec setpriv --reuid=rabbitmq --regid=rabbitmq --clear-groups "$0" "$@"
fi

exec "$@"
