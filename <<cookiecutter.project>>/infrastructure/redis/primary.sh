#!/bin/sh
# Prints the name of the primary's node. With sentinels (REDIS_SENTINELS: host:port, by commas) it is the one that more than half of
# them name, and exit code 1 says that so many do not answer or do not agree. They keep what they decide on their volumes, so
# nobody else knows better.
set -eu

if [ -z "${REDIS_SENTINELS-}" ]; then
    echo redis-primary
    exit
fi
REDISCLI_AUTH=$(tr -d '\r' </run/secrets/REDIS_PASSWORD)
export REDISCLI_AUTH
asked=0
named=""
for sentinel in $(echo "$REDIS_SENTINELS" | tr , ' '); do
    asked=$((asked + 1))
    address=$(timeout 1 redis-cli -h "${sentinel%:*}" -p "${sentinel#*:}" --no-auth-warning \
        sentinel get-master-addr-by-name stack 2>/dev/null) || address=""
    named="$named$(echo "$address" | head -n 1)
"
done
echo "$named" | grep . | sort | uniq -c | while read -r votes node; do
    if [ $((votes * 2)) -gt "$asked" ]; then
        echo "$node"
    fi
done | grep .
