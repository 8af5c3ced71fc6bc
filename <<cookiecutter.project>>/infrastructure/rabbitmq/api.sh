#!/bin/bash
# api.sh METHOD PATH [LENGTH] <BODY: prints what the management API answers, in one line of JSON. For example
#   docker exec <rabbitmq> bash /etc/rabbitmq/api.sh GET /api/queues
# With LENGTH, that of the body in bytes, it does not wait for the end of the input, which a busy engine may never pass on.
#
# HTTP by hand, so that the administrator's password is on no command line, and because rabbitmqctl starts an Erlang machine and wants
# a name that resolves.
set -euo pipefail
export LC_ALL=C # lengths are bytes

login=$(printf '%s:%s' "$MANAGEMENT_USER" "$(tr -d '\r' </run/secrets/RABBITMQ_PASSWORD)" | base64 --wrap=0)
if [ $# -gt 2 ]; then body=$(head -c "$3"); else body=$(cat); fi
exec 3<>"/dev/tcp/${MANAGEMENT_ADDRESS:-$HOSTNAME.management}/15672"
printf '%s %s HTTP/1.0\r\nHost: localhost\r\nAuthorization: Basic %s\r\n' "$1" "$2" "$login" >&3
printf 'Content-Type: application/json\r\nContent-Length: %s\r\n\r\n%s' "${#body}" "$body" >&3
answer=$(timeout 60 cat <&3)

status=${answer%%$'\r\n'*}
if [[ $status != *' 20'[0-9]* ]]; then
    echo "api.sh: $1 $2: ${status:-no answer}: ${answer##*$'\r\n'}" >&2
    exit 1
fi
printf '%s\n' "${answer#*$'\r\n\r\n'}"
