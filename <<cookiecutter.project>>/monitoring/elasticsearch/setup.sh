#!/bin/bash
# Puts the index template of the logs and how long they are kept. Safe to run at every start.
set -euo pipefail

umask 077
printf 'user = "elastic:%s"\n' "$(tr -d '\r' </run/secrets/ELASTIC_PASSWORD | sed 's/[\\"]/\\&/g')" > /run/setup/curl
lifecycle="{\"data_retention\": \"${LOG_RETENTION_DAYS}d\"}"

put() { # PATH BODY
    curl -fsS --noproxy '*' -K /run/setup/curl -X PUT -H 'Content-Type: application/json' --data-binary "$2" \
        --retry 5 --retry-connrefused "http://elasticsearch:9200/$1" \
        && echo " $1"
}

put _component_template/logs-docker-retention "{\"template\": {\"lifecycle\": $lifecycle}}"
put _index_template/logs-docker @/etc/elasticsearch-stack/index-template.json
# templates only reach data streams that are yet to come
put "_data_stream/logs-docker.otel-*/_lifecycle" "$lifecycle" \
    || echo "data streams that exist keep their retention until this succeeds" >&2
