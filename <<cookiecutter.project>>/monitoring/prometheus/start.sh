#!/bin/sh
# Writes what depends on the environment's settings (its parts, the site's name, how many of each there must be), then starts
# Prometheus: its configuration knows environment variables in external_labels only.
set -eu

replicas() { # JOB COUNT
    printf '      - record: stack:replicas_expected\n        expr: vector(%d)\n        labels: {job: %s}\n' "$2" "$1"
}

{
    echo "groups:"
    echo "  - name: expected"
    echo "    rules:"
    if [ "$DASHBOARDS_ENABLED" = true ]; then
        replicas grafana 1
    fi
    if [ "$LOGGING_ENABLED" = true ]; then
        replicas elasticsearch 1
        replicas otel-collector 1
    fi
    if [ "$BACKUP_MAX_AGE_HOURS" -gt 0 ]; then
        printf '      - record: stack:backup_max_age_seconds\n        expr: vector(%d)\n' $((BACKUP_MAX_AGE_HOURS * 3600))
    fi
} > /run/prometheus/expected.yml

# A part that is not there is nothing to miss.
mkdir -p /run/prometheus/parts
for part in /etc/prometheus/parts/*.yml; do
    case ":$COMPOSE_FILE:" in
        *":docker-compose.${part##*/}:"*) cp "$part" /run/prometheus/parts/ ;;
    esac
done

# nginx answers only to the site's name
printf '[{"targets": ["http://nginx:8080/health", "https://nginx:8443/health"], "labels": {"__param_hostname": "%s"}}]\n' "$DOMAIN" \
    > /run/prometheus/endpoint.json

exec /bin/prometheus \
    --config.file=/etc/prometheus/prometheus.yml \
    --storage.tsdb.path=/prometheus \
    --storage.tsdb.retention.time="$RETENTION_TIME" \
    --storage.tsdb.retention.size="$RETENTION_SIZE" \
    --web.listen-address=127.0.0.1:9090 \
    --web.listen-address=prometheus.monitoring:9090 \
    --web.external-url="$EXTERNAL_URL" \
    --web.route-prefix=/ \
    --log.format=json
