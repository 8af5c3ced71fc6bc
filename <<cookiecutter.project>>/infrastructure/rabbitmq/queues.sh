#!/bin/bash
# Prints the queues as JSON (name, state, messages, consumers): docker exec <rabbitmq> bash /etc/rabbitmq/queues.sh
# HTTP by hand, so that the administrator's password is on no command line and nothing has to be started but this shell.
set -euo pipefail

PATH_AND_QUERY='/api/queues?columns=name,vhost,type,state,messages,messages_ready,messages_unacknowledged,consumers'

login=$(printf '%s:%s' "$MANAGEMENT_USER" "$(</run/secrets/RABBITMQ_PASSWORD)" | base64 --wrap=0)
exec 3<>/dev/tcp/127.0.0.1/15672
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic %s\r\n\r\n' "$PATH_AND_QUERY" "$login" >&3
answer=$(timeout 10 cat <&3)

status=${answer%%$'\r\n'*}
if [[ $status != *' 200 '* ]]; then
    echo "queues.sh: the management API answered: ${status:-nothing}" >&2
    exit 1
fi
printf '%s\n' "${answer#*$'\r\n\r\n'}"
