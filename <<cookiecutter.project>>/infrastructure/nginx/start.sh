#!/bin/sh
# Writes what depends on the environment into /run/nginx, checks what must be there, and becomes nginx.
#
#   /run/nginx/settings.conf   for http {}: the public port in redirects
#   /run/nginx/names.conf      for server {}: the host names that are served
#   /run/nginx/uploads.conf    for the upload location: the size limit
#   /run/nginx/peers/*.conf    for upstream {}: who serves (see peers.sh)
set -eu

RUN=/run/nginx

fail() {
    echo "nginx: $1" >&2
    exit 1
}

# These values become configuration: nothing but the expected characters may come in.
matches() {
    printf '%s' "$1" | grep -Eqx "$2"
}
matches "$DOMAIN" '[A-Za-z0-9.-]+' || fail "DOMAIN is '$DOMAIN'; it must be a host name"
matches "$SSL_PORT" '[0-9]{1,5}' || fail "SSL_PORT is '$SSL_PORT'; it must be a port number"
matches "$UPLOAD_MAX_MB" '[0-9]{1,5}' || fail "UPLOAD_MAX_MB is '$UPLOAD_MAX_MB'; it must be a whole number of megabytes"

for file in fullchain.pem privkey.pem; do
    [ -r "/etc/nginx/tls/$file" ] || fail "config/$ENVIRONMENT/secrets/tls/$file is missing or not readable for user $(id -u); \
run invoke secret-init --env $ENVIRONMENT, or put your certificate there (mode 0444)"
done

port=":$SSL_PORT"
[ "$SSL_PORT" != 443 ] || port=""
echo "map '' \$https_port { default '$port'; }" >"$RUN/settings.conf"
# besides the domain: this machine, and any bare address, for people who have no name for the host yet
names="localhost 127.0.0.1"
[ "$DOMAIN" = localhost ] || names="$DOMAIN $names"
printf 'server_name %s "~^[0-9.]+$" "~^\\[[0-9a-f:.]+\\]$";\n' "$names" >"$RUN/names.conf"
# one more for the form around the file, so that a file just too large gets the service's own explanation
echo "client_max_body_size $((UPLOAD_MAX_MB + 1))m;" >"$RUN/uploads.conf"
for service in web api auth-service; do
    sh /etc/nginx/stack/peers.sh "$service"
done

exec nginx -c /etc/nginx/env/nginx.conf -g 'daemon off;'
