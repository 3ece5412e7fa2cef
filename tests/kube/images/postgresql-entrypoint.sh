#!/bin/bash
# Creates user and database at the first start, from POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB, then starts PostgreSQL.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
  new=$PGDATA.new
  rm -rf "$new"
  initdb --pgdata "$new" --username "$user" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") --auth-local trust \
    --auth-host scram-sha-256 --encoding UTF8
  echo "host all all all scram-sha-256" >> "$new/pg_hba.conf"
  [ "$database" = postgres ] || echo "CREATE DATABASE \"$database\" OWNER \"$user\"" | postgres --single -jE -D "$new" postgres
  mkdir -p "$PGDATA" && rmdir "$PGDATA" && mv "$new" "$PGDATA" # whole, or the next start begins again
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' "$@"
