#!/bin/sh
# guard.sh NODE: decides every second whether this node may take writes although no replica hears it: when more than half of the
# sentinels call it the primary. They would not promote the other one then, for it is away as well. As soon as a replica is there
# again, writes need it again. The guard never changes a role; only the sentinels do.
set -u

NODE=$1
RUN=/run/redis

# A replica that has been silent for so many seconds is away. By then the sentinels have long replaced a primary that was.
SILENT_SECONDS=8

# Whether this node is a primary without a replica.
alone() {
    state=$(sh /etc/redis/cli.sh info replication 2>/dev/null | tr -d '\r')
    lag=$(echo "$state" | sed -n 's/^slave[0-9]*:.*state=online.*lag=\([0-9]*\).*/\1/p' | sort -n | head -n 1)
    echo "$state" | grep -qx role:master && [ "${lag:-$SILENT_SECONDS}" -ge "$SILENT_SECONDS" ]
}

needed=1
while true; do
    wanted=1
    if alone && [ "$(sh /etc/redis/primary.sh)" = "$NODE" ]; then
        wanted=0
    fi
    if [ "$wanted" != "$needed" ] && sh /etc/redis/cli.sh config set min-replicas-to-write "$wanted" >/dev/null 2>&1; then
        needed=$wanted
        echo "guard: writes need $wanted replicas"
    fi
    touch "$RUN/guard"
    sleep 1
done
