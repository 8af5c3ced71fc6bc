#!/bin/bash
# api.sh PATH: prints what the management API answers, in one line of JSON: docker exec <rabbitmq> bash /etc/rabbitmq/api.sh /api/queues
# HTTP by hand, so that the administrator's password is on no command line and nothing has to be started but this shell.
set -euo pipefail

login=$(printf '%s:%s' "$MANAGEMENT_USER" "$(</run/secrets/RABBITMQ_PASSWORD)" | base64 --wrap=0)
exec 3<>/dev/tcp/127.0.0.1/15672
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic %s\r\n\r\n' "$1" "$login" >&3
answer=$(timeout 10 cat <&3)

status=${answer%%$'\r\n'*}
if [[ $status != *' 200 '* ]]; then
    echo "api.sh: the management API answered: ${status:-nothing}" >&2
    exit 1
fi
printf '%s\n' "${answer#*$'\r\n\r\n'}"
