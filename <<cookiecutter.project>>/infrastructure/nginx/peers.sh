#!/bin/sh
# Writes who serves a service: peers.sh SERVICE [ADDRESS…], for upstream {} in upstreams.conf. A reload makes it count.
#
# Without addresses, by name: nginx looks it up every second, and so finds scaled and restarted containers by itself. A name
# cannot be drained, though, and leads to a container as soon as it runs. So a rollout writes addresses, and the name when it is done.
set -eu

service=$1
shift
folder=/run/nginx/peers
mkdir -p "$folder"
# max_fails: a peer that fails three times is left out for two seconds
if [ $# -eq 0 ]; then
    echo "server $service:8000 resolve max_fails=3 fail_timeout=2s;"
else
    for address in "$@"; do
        echo "server $address:8000 max_fails=3 fail_timeout=2s;"
    done
    # Not asked, only looked up: a reload back to the name finds it resolved, and need not answer 502 until DNS does.
    echo "server $service:8000 resolve down;"
fi >"$folder/.$service"
mv "$folder/.$service" "$folder/$service.conf"
