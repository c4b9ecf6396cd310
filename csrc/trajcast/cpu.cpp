// The layer on the CPU, a few atoms at a time.
#include "edge_block/kernels.h"
#include "edge_block/panels.h"
#include "instruction_set.h"
#include "tensor_product/plan.h"
#include "tensor_product/sources.h"
#include "threads.h"
#include "trajcast/layer.h"

#include <ATen/Dispatch.h>
#include <algorithm>
#include <set>

namespace equistride {

namespace {

constexpr int64_t TILE = 24; // atoms: rows of two tiles of the products

// A path, and the matrix that maps what comes of it.
template <class Real> struct MappedPath {
    Path path;
    int64_t entry;      // of its M[m1, m3] among those of an edge
    const Real *matrix; // [channels, out]
    int64_t out, to;    // channels, and first column of the irrep
    bool add;           // to what other paths gave
};

// The paths of one tensor product with their matrices, and how harmonics become their M.
template <class Real> class Product {
public:
    Product(const Paths &paths, ArrayRef<double> couplings, int64_t x_width, int64_t y_width,
            const std::vector<IrrepMap> &maps, const Real *matrices)
        : plan_(paths, couplings, x_width, y_width) {
        for (const Group &group : plan_.groups)
            for (size_t p = group.first_path; p < group.last_path; ++p)
                mapped.push_back({plan_.paths[p], group.entry, nullptr, 0, 0, false});
        const auto sort_by = [this](int64_t Path::*field) {
            std::stable_sort(mapped.begin(), mapped.end(),
                             [field](const auto &a, const auto &b) { return a.path.*field < b.path.*field; });
        };
        sort_by(&Path::weights); // as irreps are filled
        auto next = mapped.begin();
        for (const IrrepMap &map : maps)
            for (int64_t filled = 0; filled < map.in; filled += next++->path.channels) {
                next->matrix = std::exchange(matrices, matrices + next->path.channels * padded(map.out));
                next->out = map.out;
                next->to = map.to;
            }
        end_ = matrices;
        sort_by(&Path::x); // so that what paths read in turn stays in cache
        std::set<int64_t> begun;
        for (auto &each : mapped)
            each.add = !begun.insert(each.to).second;
    }

    int64_t entries() const { return plan_.entries; }
    const Real *end() const { return end_; } // of the matrices
    double work() const { return plan_.work(); }

    // Matrices of `count` rows of harmonics, EDGE_BLOCK rows at a time: [blocks, entries, EDGE_BLOCK]. `turned` is
    // room for EDGE_BLOCK rows.
    void couple(const Kernels<Real> &kernels, const Real *harmonics, int64_t count, Real *turned, Real *out) const {
        const int64_t width = plan_.y_width;
        for (int64_t begin = 0; begin < count; begin += EDGE_BLOCK, out += plan_.entries * EDGE_BLOCK) {
            const int64_t rows = std::min<int64_t>(EDGE_BLOCK, count - begin);
            std::fill_n(turned, width * EDGE_BLOCK, Real(0));
            for (int64_t k = 0; k < rows; ++k)
                for (int64_t h = 0; h < width; ++h)
                    turned[h * EDGE_BLOCK + k] = harmonics[(begin + k) * width + h];
            kernels.couple(plan_.terms.data(), int64_t(plan_.terms.size()), turned, out, plan_.entries);
        }
    }

    std::vector<MappedPath<Real>> mapped;

private:
    const Plan<Real> plan_;
    const Real *end_;
};

template <class Real> class Layer {
public:
    Layer(const TrajCastLayer &in, const LayerShape &shape, const Edges &edges, const Tensor &out)
        : shape_(shape), edges_(edges), kernels_(choose_kernels<Real>()),
          multiply_(choose_edge_kernels<Real>().multiply),
          loops_(for_this_processor(trajcast_kernels<Real, InstructionSet::portable>,
                                    trajcast_kernels<Real, InstructionSet::avx2>,
                                    trajcast_kernels<Real, InstructionSet::avx512>)()),
          messages_(shape.message_paths, in.message_couplings, shape.x_width, in.bond_harmonics.size(1), shape.mixed,
                    in.weights.const_data_ptr<Real>()),
          moved_(shape.motion_paths, in.motion_couplings, shape.mixed_width, in.harmonics.size(1), shape.opened,
                 messages_.end() + network_size(shape)),
          harmonics_width_(std::max(in.bond_harmonics.size(1), in.harmonics.size(1))), x_(in.x.const_data_ptr<Real>()),
          bond_harmonics_(in.bond_harmonics.const_data_ptr<Real>()), bonds_width_(in.bond_harmonics.size(1)),
          motion_(in.motion.const_data_ptr<Real>()), harmonics_(in.harmonics.const_data_ptr<Real>()),
          velocities_width_(in.harmonics.size(1)), species_(in.species.const_data_ptr<int64_t>()),
          table_rows_(in.table.size(0)), // path after path
          table_{in.lengths.const_data_ptr<Real>(),
                 in.table.const_data_ptr<Real>(),
                 shape.channels,
                 table_rows_,
                 in.start,
                 in.step},
          factors_{Real(in.factors[0]), Real(in.factors[1])}, out_(out.mutable_data_ptr<Real>()) {
        const Real *next = messages_.end();
        for (size_t k = 1; k < shape.widths.size(); ++k)
            network_.push_back(std::exchange(next, next + shape.widths[k - 1] * padded(shape.widths[k])));
        next = moved_.end();
        for (int64_t element = 0; element < shape.elements; ++element)
            for (const IrrepMap &map : shape.kept)
                keep_.push_back(std::exchange(next, next + map.in * padded(map.out)));
    }

    // Of an atom with so many edges.
    double work(double edges) const { return shape_.work() + moved_.work() + edges * messages_.work(); }

    void atoms(int64_t begin, int64_t end) const {
        Scratch own(*this);
        for (; begin < end; begin += TILE)
            tile(begin, std::min(TILE, end - begin), own);
    }

private:
    struct Scratch {
        Buffer<Real> part, mixed, hidden, other, opened, kept, turned, sorted, of_atoms;
        std::vector<Real> of_edges;
        std::vector<const Real *> senders;
        std::vector<SplineRow<Real>> splines;
        explicit Scratch(const Layer &layer)
            : part(TILE * (2 * MAX_DEGREE + 1) * layer.shape_.channels), mixed(TILE * layer.shape_.mixed_width),
              hidden(TILE * layer.widest()), other(TILE * layer.widest()), opened(TILE * layer.shape_.opened_width),
              kept(TILE * layer.shape_.kept_width), turned(layer.harmonics_width_ * EDGE_BLOCK),
              sorted(TILE * layer.shape_.x_width), of_atoms(blocks(TILE) * layer.moved_.entries() * EDGE_BLOCK) {}
    };

    static int64_t network_size(const LayerShape &shape) {
        int64_t sum = 0;
        for (size_t k = 1; k < shape.widths.size(); ++k)
            sum += shape.widths[k - 1] * padded(shape.widths[k]);
        return sum;
    }
    static int64_t blocks(int64_t rows) { return (rows + EDGE_BLOCK - 1) / EDGE_BLOCK; }
    int64_t widest() const { return *std::max_element(shape_.widths.begin(), shape_.widths.end()); }

    void tile(int64_t begin, int64_t count, Scratch &own) const {
        read_edges(begin, count, own);
        for (const MappedPath<Real> &by : messages_.mapped) {
            const int64_t width = (2 * by.path.l3 + 1) * by.path.channels;
            for (int64_t k = 0; k < count; ++k)
                receive(by, begin + k, edges_.first[size_t(begin)], own.part.data() + k * width, own);
            apply(by, count, own.part.data(), own.mixed.data(), shape_.mixed_width);
        }
        const Real *const weights = network(begin, count, own);
        moved_.couple(kernels_, harmonics_ + begin * velocities_width_, count, own.turned.data(), own.of_atoms.data());
        for (const MappedPath<Real> &by : moved_.mapped) {
            const int64_t width = (2 * by.path.l3 + 1) * by.path.channels;
            for (int64_t k = 0; k < count; ++k)
                move(by, k, weights + k * shape_.widths.back(), own.part.data() + k * width, own);
            apply(by, count, own.part.data(), own.opened.data(), shape_.opened_width);
        }
        int64_t place[TILE];
        keep(begin, count, place, own);
        for (int64_t k = 0; k < count; ++k)
            loops_.gate(shape_.outputs.data(), int64_t(shape_.outputs.size()), shape_.channels, factors_,
                        own.opened.data() + k * shape_.opened_width, own.kept.data() + place[k] * shape_.kept_width,
                        out_ + (begin + k) * shape_.out_width);
    }

    void read_edges(int64_t begin, int64_t count, Scratch &own) const {
        const int64_t first = edges_.first[size_t(begin)], stop = edges_.first[size_t(begin + count)];
        own.senders.resize(size_t(stop - first));
        own.splines.resize(size_t(stop - first));
        for (int64_t e = first; e < stop; ++e) {
            own.senders[size_t(e - first)] = x_ + edges_.sender[e] * shape_.x_width;
            own.splines[size_t(e - first)] = table_.at(e);
        }
        own.of_edges.resize(size_t(blocks(stop - first) * messages_.entries() * EDGE_BLOCK));
        messages_.couple(kernels_, bond_harmonics_ + first * bonds_width_, stop - first, own.turned.data(),
                         own.of_edges.data());
    }

    // What atom t receives by one path. `origin`: the first edge of the tile.
    void receive(const MappedPath<Real> &by, int64_t t, int64_t origin, Real *out, const Scratch &own) const {
        const Path &path = by.path;
        const int64_t stop = edges_.first[size_t(t) + 1] - origin;
        int64_t e = edges_.first[size_t(t)] - origin;
        ForwardStep<Real> step{nullptr,
                               nullptr,
                               nullptr,
                               path.x,
                               path.weights * table_rows_,
                               path.channels,
                               0,
                               0,
                               int(path.channels),
                               int(2 * path.l1 + 1),
                               true,
                               nullptr,
                               out};
        do { // once where there are no edges, for the zeros
            const int64_t block = e / EDGE_BLOCK, lane = e % EDGE_BLOCK;
            step.edges = int(std::min(stop - e, EDGE_BLOCK - lane));
            step.x = own.senders.data() + e;
            step.splines = own.splines.data() + e;
            step.matrix = own.of_edges.data() + (block * messages_.entries() + by.entry) * EDGE_BLOCK + lane;
            kernels_.forward_table[path.l1][path.l2][path.l3](step);
            step.fresh = false;
            e += step.edges;
        } while (e < stop);
    }

    // The same of atom k of the tile with its velocity.
    void move(const MappedPath<Real> &by, int64_t k, const Real *weights, Real *out, Scratch &own) const {
        const Path &path = by.path;
        const Real *const x = own.mixed.data() + k * shape_.mixed_width;
        const int64_t matrices = k / EDGE_BLOCK * moved_.entries() + by.entry;
        kernels_.forward[path.l1][path.l2][path.l3](
            {&x, &weights, nullptr, path.x, path.weights, path.channels, 0, 1, int(path.channels), int(2 * path.l1 + 1),
             true, own.of_atoms.data() + matrices * EDGE_BLOCK + k % EDGE_BLOCK, out});
    }

    // Row by row of all atoms.
    void apply(const MappedPath<Real> &by, int64_t count, const Real *x, Real *y, int64_t y_width) const {
        const int64_t channels = by.path.channels, rows = 2 * by.path.l3 + 1;
        for (int64_t row = 0; row < rows; ++row)
            multiply_({.a = x + row * channels,
                       .lda = rows * channels,
                       .rows = count,
                       .b = by.matrix,
                       .k = channels,
                       .n = by.out,
                       .c = y + by.to + row * by.out,
                       .ldc = y_width,
                       .add = by.add});
    }

    // The weights [count, paths and channels] of the atoms' motion.
    const Real *network(int64_t begin, int64_t count, Scratch &own) const {
        const Real *from = motion_ + begin * shape_.scalars;
        Real *to = own.hidden.data(), *next = own.other.data();
        for (size_t layer = 0; layer < network_.size(); ++layer) {
            const int64_t width = shape_.widths[layer + 1];
            multiply_({.a = from,
                       .lda = shape_.widths[layer],
                       .rows = count,
                       .b = network_[layer],
                       .k = shape_.widths[layer],
                       .n = width,
                       .c = to,
                       .ldc = width});
            if (layer + 1 < network_.size())
                loops_.silu(to, count * width);
            from = to;
            std::swap(to, next);
        }
        return from;
    }

    // What is kept of the old features, element by element; place[k] is the row of atom k.
    void keep(int64_t begin, int64_t count, int64_t *place, Scratch &own) const {
        int64_t sorted = 0;
        for (int64_t element = 0; element < shape_.elements; ++element) {
            const int64_t first = sorted;
            for (int64_t k = 0; k < count; ++k)
                if (species_[begin + k] == element) {
                    std::copy_n(x_ + (begin + k) * shape_.x_width, shape_.x_width,
                                own.sorted.data() + sorted * shape_.x_width);
                    place[k] = sorted++;
                }
            for (size_t b = 0; b < shape_.kept.size() && sorted > first; ++b) {
                const IrrepMap &map = shape_.kept[b];
                for (int64_t row = 0; row < map.rows; ++row)
                    multiply_({.a = own.sorted.data() + first * shape_.x_width + map.from + row * map.in,
                               .lda = shape_.x_width,
                               .rows = sorted - first,
                               .b = keep_[size_t(element) * shape_.kept.size() + b],
                               .k = map.in,
                               .n = map.out,
                               .c = own.kept.data() + first * shape_.kept_width + map.to + row * map.out,
                               .ldc = shape_.kept_width});
            }
        }
        TORCH_CHECK_INDEX(sorted == count, "species must lie between 0 and ", shape_.elements - 1);
    }

    const LayerShape &shape_;
    const Edges &edges_;
    const Kernels<Real> &kernels_;
    void (*const multiply_)(const Multiply<Real> &);
    const TrajCastKernels<Real> &loops_;
    const Product<Real> messages_, moved_;
    const int64_t harmonics_width_;
    const Real *const x_, *const bond_harmonics_;
    const int64_t bonds_width_;
    const Real *const motion_, *const harmonics_;
    const int64_t velocities_width_;
    const int64_t *const species_;
    const int64_t table_rows_;
    const TabulatedWeights<Real> table_;
    const GateFactors<Real> factors_;
    Real *const out_;
    std::vector<const Real *> network_, keep_;
};

} // namespace

Tensor trajcast_layer_cpu(const TrajCastLayer &in, const LayerShape &shape) {
    const Tensor x = in.x.contiguous(), index = in.edge_index.contiguous(), lengths = in.lengths.contiguous(),
                 bond_harmonics = in.bond_harmonics.contiguous(), table = in.table.contiguous(),
                 motion = in.motion.contiguous(), harmonics = in.harmonics.contiguous(),
                 species = in.species.contiguous(), weights = in.weights.contiguous();
    const int64_t own = motion.size(0);
    const Edges edges(index, x.size(0), own);
    const Tensor out = at::empty({own, shape.out_width}, x.options());
    if (own == 0)
        return out;
    const TrajCastLayer dense{x,
                              index,
                              lengths,
                              bond_harmonics,
                              table,
                              in.start,
                              in.step,
                              motion,
                              harmonics,
                              species,
                              weights,
                              in.message_paths,
                              in.message_couplings,
                              in.motion_paths,
                              in.motion_couplings,
                              in.sizes,
                              in.factors};
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "trajcast_layer", [&] {
        const Layer<scalar_t> layer(dense, shape, edges, out);
        const Threads threads(double(own) * layer.work(double(edges.count) / double(own)));
        threads.share(0, own, [&](int64_t begin, int64_t end) { layer.atoms(begin, end); });
    });
    return out;
}

} // namespace equistride
