// A served layer of TrajCast: what the files of this folder share.
//
// 1. messages: sums over an atom's edges of tensor products, weighted by splines of their lengths
// 2. mixed: messages by one matrix an irrep, over the channels of all its paths
// 3. moved: tensor products of these with the harmonics of the atom's velocity, weighted by a network of its motion
// 4. opened: the gate of moved by one matrix an irrep
// 5. out: opened and what is kept of x, by one matrix an irrep of the atom's element
//
// `weights` are all matrices in panels (edge_block/panels.h): those of 2 path by path, the network's, those of 4 path
// by path, and those of 5 for one element after the other.
#pragma once
#include "tensor_product/tensor_product.h"
#include "trajcast/kernels.h"

namespace equistride {

// One irrep that a matrix maps: rows of channels in, of channels out.
struct IrrepMap {
    int64_t rows, in, out;
    int64_t from, to; // its first columns
};

// The operator's arguments.
struct TrajCastLayer {
    const Tensor &x;              // [N, columns]
    const Tensor &edge_index;     // [2, E]
    const Tensor &lengths;        // [E]
    const Tensor &bond_harmonics; // [E, harmonics]
    const Tensor &table;          // [K, weights] numbers, in memory [paths, K, channels]
    double start, step;
    const Tensor &motion;    // [n, scalars]: of the first n atoms, which alone receive
    const Tensor &harmonics; // [n, harmonics]
    const Tensor &species;   // [n]
    const Tensor &weights;   // as trajcast_pack packs them
    IntArrayRef message_paths;
    ArrayRef<double> message_couplings;
    IntArrayRef motion_paths;
    ArrayRef<double> motion_couplings;
    IntArrayRef sizes;
    ArrayRef<double> factors;

    Convolution messages() const {
        return {x, bond_harmonics, table, &lengths, start, step, edge_index, message_paths, message_couplings};
    }
};

// What `sizes` says: channels; elements; how many layers the network of the motion has, and the width of each but its
// input's; how many irreps the messages have, with rows and channels of each; how many there are before the gate, with
// rows, channels in and channels out of each; how many there are at the end, with rows, Opening, first column before
// the gate, first column of the gate, and first column in x of what is kept, or -1.
struct LayerShape {
    int64_t channels, elements, scalars;
    std::vector<int64_t> widths; // of the network's layers, its input's first
    Paths message_paths, motion_paths;
    std::vector<IrrepMap> mixed, opened, kept; // of the last, `from` is in x
    std::vector<Output> outputs;
    int64_t x_width, mixed_width, opened_width, kept_width, out_width;

    explicit LayerShape(const TrajCastLayer &in); // throws where shapes, types, devices or sizes do not fit
    double work() const;                          // of an atom's products

private:
    int64_t weights() const;
};

} // namespace equistride
