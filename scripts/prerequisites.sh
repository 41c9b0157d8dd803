#!/usr/bin/env bash
# Installs what is missing (Debian, Ubuntu; as root), or says the exact command and fails.
# Usage: scripts/prerequisites.sh [build] [server] [store] [patroni] [psql] [bench] [callgrind] [node] [drivers]
set -euo pipefail

missing=()
need() { # a condition's result and the packages that mend it
  if [ "$1" -ne 0 ]; then missing+=("${@:2}"); fi
}
has() { command -v "$1" >/dev/null 2>&1; }

has_server() {
  if [ -n "${PG_BIN:-}" ]; then [ -x "$PG_BIN/postgres" ] && [ -x "$PG_BIN/initdb" ]; return; fi
  { has postgres && has initdb; } && return 0
  local dir
  for dir in "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
    /usr/local/pgsql/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
    if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ]; then return 0; fi
  done
  return 1
}
has_pgbench() {
  has pgbench && return 0
  local dir
  for dir in /usr/lib/postgresql/*/bin; do [ -x "$dir/pgbench" ] && return 0; done
  return 1
}
# /usr/sbin is not in everybody's PATH.
has_daemon() { has "$1" || [ -x "/usr/sbin/$1" ]; }
has_store() { has valkey-server || has redis-server; }
store_package() { if apt-cache show valkey-server >/dev/null 2>&1; then echo valkey-server; else echo redis-server; fi; }
# The system's own interpreter, which has the system's own packages.
system() { if [ -x "/usr/bin/$1" ]; then echo "/usr/bin/$1"; else echo "$1"; fi; }
says() { "$(system "$1")" "${@:2}" >/dev/null 2>&1; }
has_venv() { says python3 -c 'import venv, ensurepip'; }
has_pdo() { says php -r 'exit(extension_loaded("pdo_pgsql") ? 0 : 1);'; }
check() { local result=0; "$@" || result=$?; echo "$result"; }

# Whoever serves packages may stumble; nobody waits for ever.
thrice() {
  local pause
  for pause in 5 20 0; do
    if "$@"; then return 0; fi
    sleep "$pause"
  done
  return 1
}
install_packages() {
  local apt=(timeout 900 apt-get -o Acquire::Retries=3 -o Acquire::http::Timeout=60 -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
}

install_missing() {
  if ! has apt-get; then
    echo "missing here; install what your system calls these: ${missing[*]}" >&2
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    echo "missing; run:  sudo apt-get update && sudo apt-get install -y ${missing[*]}" >&2
    exit 1
  fi

  # The packages' services would occupy ports and memory that nobody here uses: not now.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  fi
  echo "installing: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  if ! thrice install_packages >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "could not install: ${missing[*]}" >&2
    rm -f "$log"
    exit 1
  fi
  rm -f "$log"
}

# What the system has no packages for, below the build folder: in the very versions that are written down.
install_drivers() {
  local here build venv node
  here=$(cd "$(dirname "$0")/.." && pwd)
  build=$(cd "$here" && cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
  venv=$build/drivers/venv
  node=$build/drivers/node
  if ! cmp -s "$here/tests/drivers/requirements.txt" "$venv/requirements.txt"; then
    echo "installing the Python drivers: $(tr '\n' ' ' <"$here/tests/drivers/requirements.txt")"
    rm -rf "$venv"
    "$(system python3)" -m venv "$venv"
    thrice timeout 900 "$venv/bin/pip" install --quiet --disable-pip-version-check --timeout 60 -r "$here/tests/drivers/requirements.txt"
    cp "$here/tests/drivers/requirements.txt" "$venv/requirements.txt"
  fi
  if ! cmp -s "$here/tests/drivers/package.json" "$node/installed.json"; then
    echo "installing the Node drivers: $(sed -n 's/^ *"\(.*\)": "\([0-9].*\)".*/\1@\2/p' "$here/tests/drivers/package.json" | tr '\n' ' ')"
    rm -rf "$node"
    mkdir -p "$node"
    cp "$here/tests/drivers/package.json" "$node"
    (cd "$node" && thrice timeout 900 npm install --loglevel=error --no-package-lock --no-audit --no-fund >/dev/null)
    cp "$here/tests/drivers/package.json" "$node/installed.json"
  fi
}

drivers=no
for part in "$@"; do
  case $part in
    build)
      has cargo || { echo "Rust is missing: https://rustup.rs (1.90 or newer)" >&2; exit 1; }
      need "$(check has cc)" gcc libc6-dev
      need "$(check has make)" make
      ;;
    server)
      if [ -n "${PG_BIN:-}" ] && ! has_server; then
        echo "PG_BIN=$PG_BIN has no postgres and initdb" >&2
        exit 1
      fi
      need "$(check has_server)" postgresql postgresql-client
      ;;
    store) need "$(check has_store)" "$(store_package)" ;;
    patroni)
      need "$(check has patroni)" patroni
      need "$(check has etcd)" etcd-server
      ;;
    psql) need "$(check has psql)" postgresql-client ;;
    bench)
      need "$(check has_pgbench)" postgresql-contrib
      need "$(check has_daemon pgbouncer)" pgbouncer
      need "$(check has_daemon haproxy)" haproxy
      need "$(check has_daemon pgpool)" pgpool2
      need "$(check has python3)" python3
      ;;
    callgrind)
      need "$(check has valgrind)" valgrind
      need "$(check has python3)" python3
      ;;
    node) need "$(check has npm)" npm ;;
    drivers)
      drivers=yes
      need "$(check has npm)" npm
      need "$(check has_venv)" python3 python3-venv
      need "$(check has javac)" default-jdk-headless
      need "$(check test -e /usr/share/java/postgresql.jar)" libpostgresql-jdbc-java
      need "$(check says perl -MDBD::Pg -e 1)" perl libdbd-pg-perl
      need "$(check has_pdo)" php-cli php-pgsql
      need "$(check says ruby -e 'require "pg"')" ruby ruby-pg
      ;;
    *) echo "unknown part: $part" >&2; exit 2 ;;
  esac
done
if [ ${#missing[@]} -gt 0 ]; then install_missing; fi
if [ "$drivers" = yes ]; then install_drivers; fi
