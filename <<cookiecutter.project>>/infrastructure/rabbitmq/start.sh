#!/bin/bash
# Puts the cookie by which nodes know each other where Erlang wants it, and starts the server. Erlang takes it only from a file that
# nobody else can read, so the mounted secret will not do. A single node has it too, so that others can join it later.
#
# In a cluster (NODES) a node whose volume is empty joins one that runs. Only the first may begin a cluster, when no other is there:
# nodes that are new at the same moment would otherwise begin one each.
set -euo pipefail

FIRST=rabbitmq
# Erlang sizes its tables by the number of files: at a billion, which some hosts allow, it takes gigabytes. Far more than the connections
# of this stack.
[ "$(ulimit -n)" -le 16384 ] 2>/dev/null || ulimit -n 16384
# Where the management API listens; rabbitmq.conf reads it. Whoever may ask it is in the network `management`.
if [ -z "${MANAGEMENT_ADDRESS-}" ]; then
    read -r MANAGEMENT_ADDRESS _ < <(getent ahostsv4 "$HOSTNAME.management") ||
        { echo "rabbitmq: it has no address of the name $HOSTNAME.management" >&2 && exit 1; }
    export MANAGEMENT_ADDRESS
fi
# the node that a new one joins; cluster/cluster.conf reads it
export JOIN=rabbit@$HOSTNAME

[ -s /run/secrets/RABBITMQ_COOKIE ] ||
    { echo "rabbitmq: secret RABBITMQ_COOKIE is missing or empty; run invoke secret-init" >&2 && exit 1; }
umask 077
rm -f /var/lib/rabbitmq/.erlang.cookie
tr -d '\r' </run/secrets/RABBITMQ_COOKIE >/var/lib/rabbitmq/.erlang.cookie
chmod 0400 /var/lib/rabbitmq/.erlang.cookie

# Prints another node that takes connections.
running() {
    for name in $NODES; do
        if [ "$name" != "$HOSTNAME" ] && timeout 2 bash -c ": </dev/tcp/$name/5672" 2>/dev/null; then
            echo "rabbit@$name"
            return
        fi
    done
    false
}

if [ -n "${NODES-}" ] && [ ! -d "/var/lib/rabbitmq/mnesia/rabbit@$HOSTNAME" ]; then
    trap 'exit 0' TERM
    until other=$(running) || [ "$HOSTNAME" = "$FIRST" ]; do
        echo "rabbitmq: waiting for a node to join" >&2
        sleep 1
    done
    if [ -n "$other" ]; then
        # when it lost its volume, the others still count it as a member that has everything
        rabbitmqctl --quiet --node "$other" forget_cluster_node "rabbit@$HOSTNAME" >/dev/null 2>&1 || true
        JOIN=$other
    fi
fi

exec rabbitmq-server
