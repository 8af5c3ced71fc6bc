#!/bin/bash
# Makes this node the only one of its cluster, with every queue and message: the way back from docker-compose.rabbitmq-cluster.yml, to
# be gone while all nodes run, before the file is taken out of COMPOSE_FILE:  docker exec <rabbitmq> bash /etc/rabbitmq/single.sh
set -euo pipefail

# The queues go first: with two nodes left, none could be asked any more once one has stopped. A queue may be given back in between
# (see cluster.conf), hence the second try.
leave() {
    rabbitmq-queues --quiet shrink "rabbit@$1" >/dev/null
    rabbitmqctl --quiet --node "rabbit@$1" stop_app
    rabbitmqctl --quiet forget_cluster_node "rabbit@$1" && return
    rabbitmqctl --quiet --node "rabbit@$1" start_app
    return 1
}

for name in ${NODES:?this node is not part of a cluster}; do
    if [ "$name" != "$HOSTNAME" ]; then
        echo "rabbit@$name leaves"
        leave "$name" || leave "$name"
    fi
done
echo "rabbit@$HOSTNAME is the only node"
