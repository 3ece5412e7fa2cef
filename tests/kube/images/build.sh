#!/usr/bin/env bash
# Builds the images of the local overlay from Debian's packages alone, as archives: for clusters that reach no registry.
#   tests/kube/images/build.sh FOLDER [options of the builder]      FOLDER/{handsell,postgres,redis}.tar, docker archives
# Needs root, debootstrap and buildah. The base image is a Debian that debootstrap makes; torch is cut from PyPI's build. pip's
# settings of this machine, with their certificates, are mounted while it builds, and are not in the image. The certificates have
# a place of their own there: where the image has its own, an update of Debian's package could not replace a mounted file.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd); shift
base=localhost/debian:12
if [ -s /etc/pip.conf ]; then
  sed 's|^cert *=.*|cert = /etc/pip-certificates.crt|' /etc/pip.conf > "$out/pip.conf"
  set -- --volume "$out/pip.conf:/etc/pip.conf:ro" --volume /etc/ssl/certs/ca-certificates.crt:/etc/pip-certificates.crt:ro "$@"
fi
export STORAGE_DRIVER=${STORAGE_DRIVER:-overlay} BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  root=$(mktemp -d) && chmod 755 "$root"
  trap 'rm -rf "$root"' EXIT
  debootstrap --variant=minbase --include=ca-certificates bookworm "$root" > "$out/debootstrap.log"
  printf 'deb http://deb.debian.org/debian bookworm main\ndeb http://deb.debian.org/debian-security bookworm-security main\n' \
    > "$root/etc/apt/sources.list"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/*
  printf 'FROM scratch\nCOPY . /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' |
    buildah build --tag "$base" --file - "$root"
fi

save() { # a docker archive has one name per image, without a host: that of Docker Hub
  rm -f "$out/$2.tar"
  buildah push --quiet "$1" "docker-archive:$out/$2.tar:$1"
}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../../../pyproject.toml")
"$here/../../../deployments/docker/build.sh" --name "handsell:$version" --build-arg "BASE_IMAGE=$base" --build-arg TORCH=trimmed "$@"
save "handsell:$version" handsell
for name in postgresql:postgres:16 redis:redis:7; do # the tags of the manifests; Debian 12 has PostgreSQL 15 and Redis 7.0
  buildah build --layers --build-arg "BASE_IMAGE=$base" --tag "${name#*:}" --file "$here/${name%%:*}.Dockerfile" "$@" "$here"
  save "${name#*:}" "$(cut -d: -f2 <<< "$name")"
done
