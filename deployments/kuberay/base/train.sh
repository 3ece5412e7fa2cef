#!/bin/bash
# The steps of `make up` between starting Ray and serving, as one Ray job.
set -euo pipefail
for step in data features apply materialize train; do
  echo "step: $step"
  python -m handsell "$step" /etc/handsell/handsell.toml
done
