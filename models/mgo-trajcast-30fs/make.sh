#!/bin/sh
# From a CIF and SevenNet-0 to the released file, nobody's hand on it: about 65 minutes of CPU time.
set -e
cd "$(dirname "$0")/../.."
HERE=models/mgo-trajcast-30fs
pip install --no-deps sevenn==0.13.0
equistride import sevennet 7net-0 -o runs/7net-0-MgO.pt --elements Mg,O
equistride distil "$HERE/MgO.cif" --teacher runs/7net-0-MgO.pt --supercell 2,2,2 --timestep 2 --walks 12 --steps 12000 --budget 55m -o runs/mgo --name mgo-trajcast
equistride export runs/mgo/training-3/checkpoints/last.ckpt -o "$HERE/mgo-trajcast-30fs.pt" \
  --description "MgO after SevenNet-0, 300 K, 30 fs a stride" --licence MIT --shortest 1.29 --tables 1e-4 \
  --reference "TrajCast: arXiv:2503.23794" \
  --reference "SevenNet-0: Park, Kim, Hwang, Han, J. Chem. Theory Comput. 20, 4857 (2024)" \
  --accuracy displacement_mae_percent_of_rms=1.34 --accuracy velocity_mae_percent_of_rms=2.78
cp runs/mgo/relaxed.extxyz "$HERE/MgO.extxyz"
