#!/usr/bin/env bash
# Builds the image of handsell with docker, podman or buildah, whichever is there.
#   deployments/docker/build.sh [--name handsell:0.1.0] [options of the builder, such as --build-arg TORCH=cuda]
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
name=handsell:$version
if [ "${1:-}" = --name ]; then name=$2; shift 2; fi

if docker info >/dev/null 2>&1; then builder=docker; ignore=()  # BuildKit finds Dockerfile.dockerignore itself
elif command -v podman >/dev/null; then builder=podman; ignore=(--ignorefile deployments/docker/Dockerfile.dockerignore)
elif command -v buildah >/dev/null; then builder=buildah; ignore=(--ignorefile deployments/docker/Dockerfile.dockerignore --layers)
else echo "build.sh: expected docker (with a running engine), podman or buildah, found none of them" >&2; exit 1; fi

exec "$builder" build "${ignore[@]}" --file deployments/docker/Dockerfile --tag "$name" \
  --build-arg VERSION="$version" --build-arg REVISION="$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" "$@" .
