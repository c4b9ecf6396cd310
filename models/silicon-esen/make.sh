#!/bin/sh
# From nothing to the released file: about 2 minutes for the data, 6 for the training on one free core.
set -e
cd "$(dirname "$0")/../.."
equistride data silicon -o data
equistride train models/silicon-esen/config.yaml -o runs/silicon-esen
equistride export runs/silicon-esen/checkpoints/last.ckpt -o models/silicon-esen/silicon-esen.pt \
  --description "silicon after Stillinger and Weber, 30 to 1000 K" --licence MIT \
  --reference "eSEN: arXiv:2502.12147" \
  --reference "Si potential: Stillinger and Weber, Phys. Rev. B 31, 5262 (1985)"
