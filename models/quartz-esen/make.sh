#!/bin/sh
# From nothing to the released file: about 5 minutes for the data, an hour for the training on one core.
set -e
cd "$(dirname "$0")/../.."
equistride data quartz -o data
equistride train models/quartz-esen/config.yaml -o runs/quartz-esen
equistride export runs/quartz-esen/checkpoints/last.ckpt -o models/quartz-esen/quartz-esen.pt \
  --description "alpha-quartz after SiO.1990.vashishta, 300 to 900 K" --licence MIT \
  --reference "eSEN: arXiv:2502.12147" \
  --reference "SiO2 potential: Vashishta et al., Phys. Rev. B 41, 12197 (1990)" \
  --accuracy force_mae_meV_per_A=14.0 --accuracy energy_mae_meV_per_atom=0.08
