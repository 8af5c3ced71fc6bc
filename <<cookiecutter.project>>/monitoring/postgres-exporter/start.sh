#!/bin/sh
# The exporter takes the password of named targets from its configuration only: written here, in memory, from the secret.
set -eu

umask 077
cat > /run/postgres-exporter/config.yml <<CONFIG
auth_modules:
  metrics:
    type: userpass
    userpass:
      username: metrics
      password: '$(tr -d '\r' </run/secrets/METRICS_DB_PASSWORD | sed "s/'/''/g")'
    options:
      dbname: '$POSTGRES_DB'
      # the database network is internal to this host
      sslmode: disable
CONFIG

exec /bin/postgres_exporter --config.file=/run/postgres-exporter/config.yml --log.format=json
