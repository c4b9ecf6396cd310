#!/bin/sh
# From nothing to the released file: about 35 minutes for the data, about 40 for the training on an idle core.
set -e
cd "$(dirname "$0")/../.."
HERE=models/paracetamol-trajcast-7fs SMILES='CC(=O)NC1=CC=C(O)C=C1'
equistride data molecule "$SMILES" --stride-fs 7 --frames 40 --segments 32 --walks 5 -o data/paracetamol-300.npz
equistride data molecule "$SMILES" --stride-fs 7 --frames 40 --segments 25 --walks 2 --temperature 450 --seed 2 -o data/paracetamol-450.npz
equistride data molecule "$SMILES" --stride-fs 7 --walks 2 --segments 25 --seed 3 -o data/paracetamol-test.npz
equistride train "$HERE/config.yaml" -o runs/paracetamol-trajcast-7fs
equistride export runs/paracetamol-trajcast-7fs/checkpoints/last.ckpt -o "$HERE/paracetamol-trajcast-7fs.pt" \
  --description "paracetamol after GFN2-xTB, free molecule, 300 K, 7 fs a stride" --licence MIT --shortest 0.7 --tables 1e-4 \
  --reference "TrajCast: arXiv:2503.23794" \
  --reference "GFN2-xTB: Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019)" \
  --accuracy displacement_mae_percent_of_rms=0.71 --accuracy velocity_mae_percent_of_rms=1.08
