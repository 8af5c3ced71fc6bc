#!/bin/sh
# Writes Alertmanager's configuration from the environment's settings and routes.yml, then starts it.
# `start.sh check` only validates the result.
set -eu

config=/run/alertmanager/alertmanager.yml

quote() { # a YAML string that holds exactly this value
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/''/g")"
}

global() {
    echo "global:"
    echo "  smtp_smarthost: $(quote "$SMTP_HOST:$SMTP_PORT")"
    echo "  smtp_from: $(quote "$MAIL_FROM")"
    echo "  smtp_hello: $(quote "${MAIL_FROM##*@}")"
    case $SMTP_TLS in
        none) echo "  smtp_require_tls: false" ;;
        starttls) echo "  smtp_require_tls: true" ;;
        tls) echo "  smtp_force_implicit_tls: true" ;;
        *) echo "SMTP_TLS must be none, starttls or tls, not '$SMTP_TLS'" >&2; exit 1 ;;
    esac
    if [ -n "$SMTP_USER" ]; then
        echo "  smtp_auth_username: $(quote "$SMTP_USER")"
        echo "  smtp_auth_password_file: /run/secrets/SMTP_PASSWORD"
    fi
}

receivers() {
    echo "receivers:"
    echo "  - name: mail"
    echo "    email_configs:"
    echo "      - to: $(quote "$ADMIN_EMAIL")"
    echo "        send_resolved: true"
    echo "  - name: heartbeat"
    if [ -n "$HEARTBEAT_URL" ]; then
        echo "    webhook_configs:"
        echo "      - url: $(quote "$HEARTBEAT_URL")"
        echo "        send_resolved: false"
    fi
}

{ global; receivers; cat /etc/alertmanager/routes.yml; } > "$config"

[ "${1:-}" != check ] || exec /bin/amtool check-config "$config"

exec /bin/alertmanager \
    --config.file="$config" \
    --storage.path=/alertmanager \
    --web.listen-address=127.0.0.1:9093 \
    --web.listen-address=alertmanager.monitoring:9093 \
    --web.external-url="$EXTERNAL_URL" \
    --web.route-prefix=/ \
    --cluster.listen-address= \
    --log.format=json
