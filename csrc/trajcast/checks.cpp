// The checks of the arguments, without reading a tensor: a file's sizes are not believed.
#include "checks.h"
#include "edge_block/panels.h"
#include "trajcast/layer.h"

#include <algorithm>

namespace equistride {

namespace {

constexpr int64_t MOST = 1 << 20; // of any size, so that no product of three overflows

// The numbers of `sizes`, one after the other.
class Reader {
public:
    explicit Reader(IntArrayRef from) : from_(from) {}
    int64_t any() {
        TORCH_CHECK_VALUE(at_ < from_.size(), "sizes of a TrajCast layer end too early; found ", from_.size(),
                          " numbers");
        return from_[at_++];
    }
    int64_t size() {
        const int64_t found = any();
        TORCH_CHECK_VALUE(found > 0 && found <= MOST, "a size of a TrajCast layer must be above 0 and at most ", MOST,
                          "; found ", found);
        return found;
    }
    int64_t place(int64_t columns, int64_t width) {
        const int64_t found = any();
        TORCH_CHECK_VALUE(found >= 0 && columns <= width && found <= width - columns,
                          "an irrep of a TrajCast layer of ", columns, " columns must lie within ", width,
                          "; found column ", found);
        return found;
    }
    bool ended() const { return at_ == from_.size(); }

private:
    IntArrayRef from_;
    size_t at_ = 0;
};

// The irreps that the paths lead to, which must fill each of them, path by path.
void check_paths(const std::vector<IrrepMap> &irreps, const Paths &paths, int64_t channels) {
    size_t p = 0;
    for (const IrrepMap &irrep : irreps) {
        for (int64_t filled = 0; filled < irrep.in; filled += channels, ++p)
            TORCH_CHECK_VALUE(p < paths.all.size() && paths.all[p].out == irrep.from + filled &&
                                  paths.all[p].out_stride == irrep.in && 2 * paths.all[p].l3 + 1 == irrep.rows &&
                                  paths.all[p].channels == channels && paths.all[p].weights == int64_t(p) * channels,
                              "paths of a TrajCast layer must fill its irreps one after the other; path ", p,
                              " does not");
    }
    TORCH_CHECK_VALUE(p == paths.all.size(), "a TrajCast layer has ", paths.all.size(), " paths, but irreps for ", p);
}

void check_rows(const char *name, const Tensor &tensor, const c10::SymInt &rows, int64_t columns) {
    TORCH_CHECK_VALUE(tensor.dim() == 2 && tensor.sym_size(0) == rows && tensor.sym_size(1) == columns, name,
                      " must have shape [", rows, ", ", columns, "]; found ", tensor.sym_sizes());
}

int64_t columns_of(const Tensor &tensor) {
    TORCH_CHECK_VALUE(tensor.dim() == 2, "motion and harmonics must have two dimensions; found ", tensor.sym_sizes());
    return tensor.sym_size(1).guard_int(__FILE__, __LINE__);
}

} // namespace

LayerShape::LayerShape(const TrajCastLayer &in)
    : message_paths(check_convolution(in.messages())),
      motion_paths(in.motion_paths, in.motion_couplings, MOST, columns_of(in.harmonics)) {
    Reader sizes(in.sizes);
    channels = sizes.size();
    elements = sizes.size();
    scalars = columns_of(in.motion);
    x_width = in.x.sym_size(1).guard_int(__FILE__, __LINE__);
    widths.push_back(scalars);
    for (int64_t left = sizes.size(); left > 0; --left)
        widths.push_back(sizes.size());
    mixed_width = opened_width = kept_width = out_width = 0;
    int64_t width = 0;
    const auto map = [&](std::vector<IrrepMap> &maps, int64_t rows, int64_t fan_in, int64_t fan_out, int64_t &to) {
        maps.push_back({rows, fan_in, fan_out, width, to});
        width += rows * fan_in;
        to += rows * fan_out;
    };
    for (int64_t left = sizes.size(); left > 0; --left) {
        const int64_t rows = sizes.size(), fan_in = sizes.size();
        map(mixed, rows, fan_in, channels, mixed_width);
    }
    check_paths(mixed, message_paths, channels);
    width = 0;
    for (int64_t left = sizes.size(); left > 0; --left) {
        const int64_t rows = sizes.size(), fan_in = sizes.size();
        map(opened, rows, fan_in, sizes.size(), opened_width);
    }
    check_paths(opened, motion_paths, channels);
    for (const Path &path : motion_paths.all)
        TORCH_CHECK_VALUE(path.x + (2 * path.l1 + 1) * channels <= mixed_width,
                          "a path of a TrajCast layer reads column ", path.x, " of ", mixed_width);
    TORCH_CHECK_VALUE(widths.back() == motion_paths.weights_width, "the network of a TrajCast layer must make ",
                      motion_paths.weights_width, " weights; found ", widths.back());
    for (int64_t left = sizes.size(); left > 0; --left) {
        Output output{};
        output.rows = sizes.size();
        output.opening = Opening(sizes.any());
        TORCH_CHECK_VALUE(
            output.opening == Opening::gated ||
                ((output.opening == Opening::tanh || output.opening == Opening::silu) && output.rows == 1),
            "an irrep of a TrajCast layer has an unknown gate");
        output.from = sizes.place(output.rows * channels, opened_width);
        output.gate = sizes.place(channels, opened_width);
        output.to = out_width;
        output.old = sizes.any();
        if (output.old != -1) {
            TORCH_CHECK_VALUE(output.old >= 0 && output.old <= x_width - output.rows * channels,
                              "a TrajCast layer keeps column ", output.old, " of ", x_width);
            kept.push_back({output.rows, channels, channels, output.old, kept_width});
            output.old = kept_width;
            kept_width += output.rows * channels;
        }
        out_width += output.rows * channels;
        outputs.push_back(output);
    }
    TORCH_CHECK_VALUE(sizes.ended(), "sizes of a TrajCast layer hold more than its sizes");
    TORCH_CHECK_VALUE(in.factors.size() == 2, "a TrajCast layer has 2 factors; found ", in.factors.size());
    const c10::SymInt own = in.motion.sym_size(0);
    check_like("motion", in.motion, "x", in.x);
    check_like("harmonics", in.harmonics, "x", in.x);
    check_rows("harmonics", in.harmonics, own, columns_of(in.harmonics));
    check_device("species", in.species, "x", in.x);
    TORCH_CHECK_TYPE(in.species.scalar_type() == at::kLong, "species must be int64; found ", in.species.scalar_type());
    TORCH_CHECK_VALUE(in.species.dim() == 1 && in.species.sym_size(0) == own, "species must have one number an atom, [",
                      own, "]; found ", in.species.sym_sizes());
    TORCH_CHECK_VALUE(own <= in.x.sym_size(0), "x must have a row for each of the ", own, " atoms that receive; found ",
                      in.x.sym_sizes());
    check_like("weights", in.weights, "x", in.x);
    TORCH_CHECK_VALUE(in.weights.dim() == 1 && in.weights.sym_size(0) == weights(), "weights must hold ", weights(),
                      " numbers, as trajcast_pack packs them; found ", in.weights.sym_sizes());
}

int64_t LayerShape::weights() const {
    int64_t sum = 0;
    for (const auto *const maps : {&mixed, &opened, &kept})
        for (const IrrepMap &map : *maps)
            sum += map.in * padded(map.out) * (maps == &kept ? elements : 1);
    for (size_t k = 1; k < widths.size(); ++k)
        sum += widths[k - 1] * padded(widths[k]);
    return sum;
}

double LayerShape::work() const {
    double sum = 0;
    for (const auto *const maps : {&mixed, &opened, &kept})
        for (const IrrepMap &map : *maps)
            sum += 2.0 * double(map.rows) * double(map.in * map.out);
    for (size_t k = 1; k < widths.size(); ++k)
        sum += 2.0 * double(widths[k - 1] * widths[k]);
    return sum;
}

} // namespace equistride
