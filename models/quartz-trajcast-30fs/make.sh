#!/bin/sh
# From nothing to the released file: about 10 minutes for the data, about an hour and a half for the training on an idle core.
set -e
cd "$(dirname "$0")/../.."
for name in quartz72 quartz72-starts quartz162 quartz162-test; do
  equistride data quartz -o data --recipe "$name"
done
equistride train models/quartz-trajcast-30fs/config.yaml -o runs/quartz-trajcast-30fs-1
equistride train models/quartz-trajcast-30fs/rollout.yaml -o runs/quartz-trajcast-30fs-2
equistride export runs/quartz-trajcast-30fs-2/checkpoints/last.ckpt -o models/quartz-trajcast-30fs/quartz-trajcast-30fs.pt \
  --description "alpha-quartz after SiO.1990.vashishta, 300 K, 30 fs a stride" --licence MIT --shortest 1.0 --tables 1e-4 \
  --reference "TrajCast: arXiv:2503.23794" \
  --reference "SiO2 potential: Vashishta et al., Phys. Rev. B 41, 12197 (1990)" \
  --accuracy displacement_mae_percent_of_rms=2.99 --accuracy velocity_mae_percent_of_rms=5.47
