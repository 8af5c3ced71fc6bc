#!/bin/sh
# Options or a configuration file alone mean redis-server; root gives its rights up.
set -eu

case "${1-}" in
-* | *.conf) set -- redis-server "$@" ;;
esac

case "${1-}" in
redis-server | redis-sentinel)
    if [ "$(id -u)" = 0 ]; then
        find . \! -user redis -exec chown redis:redis '{}' +
        exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
    fi
    umask 0077
    ;;
esac

exec "$@"
