#!/bin/sh
# redis-server, redis-cli and redis-check-rdb of the image that the stack runs, with the libraries of that image.
name=${0##*/}
program=$name
[ "$name" = redis-cli ] || program=redis-server # redis-check-rdb is the server under another name
loader=$(echo /opt/redis/lib/ld-*)
exec "$loader" --library-path /opt/redis/lib --argv0 "$name" "/opt/redis/$program" "$@"
