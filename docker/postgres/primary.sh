#!/bin/sh
# Run once by the postgres image (docker-entrypoint-initdb.d), before the server listens on TCP:
# the users, the application's database, one slot per replica.
set -eu

psql --no-psqlrc --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set=app_password="$APP_PASSWORD" --set=repl_password="$REPL_PASSWORD" \
  --set=monitor_password="$PGWEIR_MONITOR_PASSWORD" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'app_password';
CREATE DATABASE app OWNER app;
CREATE ROLE pgweir LOGIN PASSWORD :'monitor_password' IN ROLE pg_monitor;
CREATE ROLE repl LOGIN REPLICATION PASSWORD :'repl_password';
SELECT pg_create_physical_replication_slot(slot) FROM unnest(ARRAY['replica1', 'replica2']) slot;
SQL

# The image admits everybody to databases, but nobody to replication from elsewhere.
echo "host replication repl all scram-sha-256" >>"$PGDATA/pg_hba.conf"
