#!/bin/sh
# From nothing to the released file: about 8 minutes for the data, two hours for the training on one core.
set -e
cd "$(dirname "$0")/../.."
for name in quartz72 quartz72-cold quartz9-cold quartz9-rest quartz162-test; do
  equistride data quartz -o data --recipe "$name"
done
equistride train models/quartz-esen/config.yaml -o runs/quartz-esen-1
equistride train models/quartz-esen/deeper.yaml -o runs/quartz-esen-2
equistride train models/quartz-esen/rest.yaml -o runs/quartz-esen-3
equistride export runs/quartz-esen-3/checkpoints/last.ckpt -o models/quartz-esen/quartz-esen.pt \
  --description "alpha-quartz after SiO.1990.vashishta, 0 to 900 K" --licence MIT \
  --reference "eSEN: arXiv:2502.12147" \
  --reference "SiO2 potential: Vashishta et al., Phys. Rev. B 41, 12197 (1990)" \
  --accuracy force_mae_meV_per_A=@@F --accuracy energy_mae_meV_per_atom=@@E
