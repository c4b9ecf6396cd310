#!/bin/sh
# From a box of water and its teacher to the released file: about 15 minutes of CPU time for the data, 75 for the training, 10 for what follows.
set -e
cd "$(dirname "$0")/../.."
HERE=models/water-trajcast-5fs
equistride distil examples/water/water64.extxyz --teacher examples/water/spc_fw.py:water --stride 5 --relax none --supercell 1,1,1 \
  --temperatures 300,280,330 --walks 40 --steps 24000 --frames 4000 --strides 10000 -o runs/water --name water-trajcast-5fs --licence MIT \
  --reference "SPC/Fw: Wu, Tepper, Voth, J. Chem. Phys. 124, 024503 (2006)" \
  'model.radial_widths=[64,64,32]' 'model.speed_widths=[64,64,64]' model.num_radial=12 model.num_speed=12 model.cutoff=5.5 \
  'curriculum=[{from_step: 0, rollout: 1}]'
cp runs/water/water-trajcast-5fs.pt "$HERE/"
