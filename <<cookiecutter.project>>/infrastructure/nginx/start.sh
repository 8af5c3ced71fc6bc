#!/bin/sh
# Writes what depends on the environment into /run/nginx, checks what must be there, and becomes nginx.
#
#   /run/nginx/main.conf       for the top level: how many workers
#   /run/nginx/settings.conf   for http {}: the public port in redirects, whose word on a client's address counts, where names are looked up
#   /run/nginx/http.conf       for server {}: where it listens for HTTP
#   /run/nginx/https.conf      for server {}: where it listens for HTTPS
#   /run/nginx/names.conf      for server {}: the host names that are served
#   /run/nginx/http3.conf      for server {}: where it listens for HTTP/3
#   /run/nginx/strangers.conf  for server {}: what happens to a TLS handshake for another name
#   /run/nginx/uploads.conf    for the upload location: the size limit
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
matches "$NGINX_CPUS" '[0-9]*(\.[0-9]+)?' || fail "NGINX_CPUS is '$NGINX_CPUS'; it must be a number"
proxies=$(printf '%s' "$TRUSTED_PROXIES" | tr , ' ')
for proxy in $proxies; do
    matches "$proxy" '[0-9A-Fa-f.:]+(/[0-9]{1,3})?' ||
        fail "TRUSTED_PROXIES has '$proxy'; it must be addresses or networks (203.0.113.7 10.0.0.0/8)"
done
case $PROXY_PROTOCOL in "" | on) ;; *) fail "PROXY_PROTOCOL is '$PROXY_PROTOCOL'; it must be on, or empty" ;; esac
[ -z "$PROXY_PROTOCOL" ] || [ -n "$proxies" ] ||
    fail "TRUSTED_PROXIES is empty; with PROXY_PROTOCOL it must name the load balancers"
[ -z "$PROXY_PROTOCOL" ] || [ "${HTTP3-off}" = off ] ||
    fail "PROXY_PROTOCOL is on; HTTP/3 cannot carry it, so take docker-compose.http3.yml out of COMPOSE_FILE"

for file in fullchain.pem privkey.pem; do
    [ -r "/etc/nginx/tls/$file" ] || fail "config/$ENVIRONMENT/secrets/tls/$file is missing or not readable for user $(id -u); \
run invoke secret-init --env $ENVIRONMENT, or put your certificate there (mode 0444)"
done

# a worker keeps one processor busy, so part of one more needs another
workers=${NGINX_CPUS%%.*}
case $NGINX_CPUS in *.*[1-9]*) workers=$((${workers:-0} + 1)) ;; esac
[ "${workers:-0}" -gt 0 ] || workers=auto # no limit
echo "worker_processes $workers;" >"$RUN/main.conf"

# The name servers of this container; nginx wants IPv6 addresses in brackets.
servers=$(awk '$1 == "nameserver" { print $2 ~ /:/ ? "[" $2 "]" : $2 }' /etc/resolv.conf | tr '\n' ' ')
[ -n "$servers" ] || fail "/etc/resolv.conf names no name server"

port=":$SSL_PORT"
[ "$SSL_PORT" != 443 ] || port=""
alt_svc=""
[ "${HTTP3-off}" = off ] || alt_svc="h3=\":$SSL_PORT\"; ma=86400"
{
    # Docker's DNS says 600 s, which is wrong as soon as a container is replaced
    echo "resolver $servers valid=1s ipv6=off;"
    echo "map '' \$https_port { default '$port'; }"
    # who came by HTTPS is told that HTTP/3 is there, and remembers it for a day
    echo "map \$https \$alt_svc { default ''; on '$alt_svc'; }"
    # A client's address is what a load balancer says only if the connection came from one. Of a list the last stranger counts.
    if [ -n "$PROXY_PROTOCOL" ]; then
        echo "real_ip_header proxy_protocol;"
    else
        echo "real_ip_header X-Forwarded-For;"
    fi
    echo "real_ip_recursive on;"
    for proxy in $proxies; do
        echo "set_real_ip_from $proxy;"
    done
} >"$RUN/settings.conf"

# listen NAME PORT OPTIONS: where the PROXY protocol is on also on 1PORT, which takes it, and is published instead
listen() {
    for address in "" $(if [ "${IPV6-off}" = on ]; then echo "[::]:"; fi); do
        echo "listen $address$2${3:+ $3};"
        [ -z "$PROXY_PROTOCOL" ] || echo "listen ${address}1$2${3:+ $3} proxy_protocol;"
    done >"$RUN/$1.conf"
}
listen http 8080 ""
listen https 8443 ssl

# quic OPTIONS: what a server {} says to listen for HTTP/3
quic() {
    [ "${HTTP3-off}" = on ] || return 0
    for address in "" $(if [ "${IPV6-off}" = on ]; then echo "[::]:"; fi); do
        echo "listen ${address}8443 quic${1:+ $1};"
    done
    echo "http3 on;"
}
quic "" >"$RUN/http3.conf"

# Besides the domain this machine itself. Any bare address is served only where there is no name: the domain is an address, or
# `localhost`.
names="localhost 127.0.0.1 [::1]"
refuse=""
case $DOMAIN in
localhost) names="$names ~^[0-9.]+\$ ~^\[[0-9a-f:.]+\]\$" ;;
*[!0-9.]*)
    names="$DOMAIN $names"
    # Who connects to the bare address learns not even the certificate. Some load balancers connect without a name, though.
    [ -n "$proxies" ] || refuse="ssl_reject_handshake on;"
    ;;
*) names="$DOMAIN $names" ;;
esac
echo "server_name $names;" >"$RUN/names.conf"
{
    echo "$refuse"
    quic reuseport # of all servers one must say it: a worker needs a socket of its own, to get the packets of its connections
} >"$RUN/strangers.conf"
# one more for the form around the file, so that a file just too large gets the service's own explanation
echo "client_max_body_size $((UPLOAD_MAX_MB + 1))m;" >"$RUN/uploads.conf"

# Its errors as JSON. Opened for both directions, so that nginx never waits for a reader.
mkfifo "$RUN/errors"
{ LC_ALL=C sed -u -E -f /etc/nginx/stack/errors.sed || cat; } <"$RUN/errors" >&2 &
exec nginx -c /etc/nginx/env/nginx.conf -g 'daemon off;' 2<>"$RUN/errors"
