#!/bin/sh
# From nothing to the released file: about 10 minutes for the data, 50 minutes for the training on one core.
set -e
cd "$(dirname "$0")/../.."
for name in quartz72 quartz72-cold quartz9-cold quartz9-rest quartz162-test; do
  equistride data quartz -o data --recipe "$name"
done
equistride train models/quartz-nequip/config.yaml -o runs/quartz-nequip-1
equistride train models/quartz-nequip/rest.yaml -o runs/quartz-nequip-2
equistride export runs/quartz-nequip-2/checkpoints/last.ckpt -o models/quartz-nequip/quartz-nequip.pt \
  --description "alpha-quartz after SiO.1990.vashishta, 0 to 900 K" --licence MIT \
  --reference "NequIP: Batzner et al., Nat. Commun. 13, 2453 (2022)" \
  --reference "SiO2 potential: Vashishta et al., Phys. Rev. B 41, 12197 (1990)" \
  --accuracy force_mae_meV_per_A=12.1 --accuracy energy_mae_meV_per_atom=0.08
