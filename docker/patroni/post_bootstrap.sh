#!/bin/sh
# Run once by Patroni, on the first primary, with a libpq URI of the superuser: the users, and the
# application's database.
set -eu

psql --no-psqlrc --set=ON_ERROR_STOP=1 --dbname="$1" \
  --set=app_password="$APP_PASSWORD" --set=monitor_password="$PGWEIR_MONITOR_PASSWORD" <<'SQL'
CREATE ROLE app LOGIN PASSWORD :'app_password';
CREATE DATABASE app OWNER app;
CREATE ROLE pgweir LOGIN PASSWORD :'monitor_password' IN ROLE pg_monitor;
SQL
