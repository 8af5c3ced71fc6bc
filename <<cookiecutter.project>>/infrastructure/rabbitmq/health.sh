#!/bin/bash
# Exit 0 when the broker answers the opening of the AMQP protocol with its Connection.Start (a frame of type 1).
# rabbitmq-diagnostics would start an Erlang machine for every check: seconds of CPU where this takes milliseconds.
set -euo pipefail

exec 3<>/dev/tcp/127.0.0.1/5672
printf 'AMQP\x00\x00\x09\x01' >&3
frame=$(timeout 3 head --bytes=1 <&3 | od -An -tu1 | tr -d ' ')
[ "$frame" = 1 ] || { echo "no AMQP on port 5672 (answer: ${frame:-none})" && exit 1; }
