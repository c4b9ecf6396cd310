#!/bin/sh
# From nothing to the released file: about 10 minutes for the data, about 50 minutes for the training on an idle core.
set -e
cd "$(dirname "$0")/../.."
for name in quartz72 quartz72-starts quartz162 quartz162-test; do
  equistride data quartz -o data --recipe "$name"
done
stage=1
for name in config rollout tame settle; do
  equistride train "models/quartz-trajcast-30fs/$name.yaml" -o "runs/quartz-trajcast-30fs-$stage"
  stage=$((stage + 1))
done
equistride export runs/quartz-trajcast-30fs-4/checkpoints/last.ckpt -o models/quartz-trajcast-30fs/quartz-trajcast-30fs.pt \
  --description "alpha-quartz after SiO.1990.vashishta, 300 K, 30 fs a stride" --licence MIT --shortest 1.0 --tables 1e-4 \
  --reference "TrajCast: arXiv:2503.23794" \
  --reference "SiO2 potential: Vashishta et al., Phys. Rev. B 41, 12197 (1990)" \
  --accuracy displacement_mae_percent_of_rms=2.76 --accuracy velocity_mae_percent_of_rms=4.86
