#!/bin/sh
# Entrypoint of a replica (as the user postgres): takes a base backup the first time, then streams.
# REPLICA_NAME is also the name of its slot on the primary.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  unfinished=$PGDATA.unfinished
  tries=0
  until
    rm -rf "$unfinished" &&
      PGPASSWORD=$REPL_PASSWORD pg_basebackup --pgdata="$unfinished" --write-recovery-conf \
        --slot="$REPLICA_NAME" --wal-method=stream --checkpoint=fast \
        --dbname="host=$PRIMARY_HOST port=${PRIMARY_PORT:-5432} user=repl application_name=$REPLICA_NAME"
  do
    tries=$((tries + 1))
    if [ "$tries" -ge 30 ]; then
      echo "no base backup from $PRIMARY_HOST after $tries attempts" >&2
      exit 1
    fi
    sleep 2
  done
  # Whole or not at all: a container that was stopped in between starts over.
  rm -rf "$PGDATA"
  mv "$unfinished" "$PGDATA"
fi
exec docker-entrypoint.sh "$@"
