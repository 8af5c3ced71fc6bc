#!/bin/bash
# Patroni calls this once, after it has made a new cluster: the database, then initdb/ as the image's own entrypoint runs it.
set -euo pipefail

psql=(psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER")
"${psql[@]}" --dbname=postgres --set=db="$POSTGRES_DB" <<<'CREATE DATABASE :"db"'
for file in /etc/postgresql/initdb/*; do
    case "$file" in
    *.sh) bash "$file" ;;
    *.sql) "${psql[@]}" --dbname="$POSTGRES_DB" --file="$file" ;;
    esac
done
