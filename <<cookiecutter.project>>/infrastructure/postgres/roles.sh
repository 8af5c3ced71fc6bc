#!/bin/bash
# The stack's own roles and the privileges of every database, as they should be. Runs on first boot, and can run again at any time:
# it creates what is missing and sets every password to what the secret files say:
#   docker exec <the primary> bash /etc/postgresql/roles.sh
# The roles, schemas and databases of the services come from their labels: `invoke deploy` makes those.
set -euo pipefail

for secret in POSTGRES_PASSWORD REPLICATION_PASSWORD METRICS_DB_PASSWORD; do
    if [ ! -s "/run/secrets/$secret" ]; then
        echo "roles.sh: secret $secret is missing or empty; run invoke secret-init" >&2
        exit 1
    fi
done

# What pg_rewind needs of a primary (Patroni takes an old one back in with it). A privilege on a function belongs to one database,
# and Patroni connects to this one. Whoever may copy the whole cluster learns nothing new by it.
rewind() {
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --single-transaction --username="$POSTGRES_USER" --dbname=postgres <<'SQL'
GRANT CONNECT ON DATABASE postgres TO replicator;
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), pg_read_binary_file(text),
    pg_read_binary_file(text, bigint, bigint, boolean) TO replicator;
SQL
}

# psql reads the passwords itself (a backtick drops the final newline) and quotes them with :'name', so any character is safe and
# none shows in a list of processes. One transaction: either everything holds or nothing changed.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --single-transaction --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
-- a failed or slow statement would be logged with the password in it
SET log_min_error_statement = panic;
SET log_min_duration_statement = -1;
SET log_statement = none;
SET client_min_messages = warning;

\set superuser_password `tr -d '\r' </run/secrets/POSTGRES_PASSWORD`
\set replicator_password `tr -d '\r' </run/secrets/REPLICATION_PASSWORD`
\set metrics_password `tr -d '\r' </run/secrets/METRICS_DB_PASSWORD`
\set database `echo "$POSTGRES_DB"`

-- Roles. CREATE ROLE has no IF NOT EXISTS. Members of `services` may connect over the network: pg_hba.conf.
SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['replicator', 'metrics', 'services']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE CURRENT_USER PASSWORD :'superuser_password';
ALTER ROLE replicator LOGIN REPLICATION PASSWORD :'replicator_password';
ALTER ROLE metrics LOGIN PASSWORD :'metrics_password';
GRANT pg_monitor TO metrics;

-- Nobody gets in who is not named: the default lets every role connect everywhere and make temporary tables.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', datname) FROM pg_database WHERE datname <> 'template0'
\gexec
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO metrics;
GRANT CONNECT ON DATABASE postgres TO metrics;

-- A request has given up long before this, so the database may too.
ALTER ROLE metrics SET statement_timeout = '10s';
ALTER ROLE metrics CONNECTION LIMIT 10;

SQL
rewind
