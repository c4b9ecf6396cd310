#include "model/aoti.h"

#include "artifact/archive.h"
#include "gil.h"
#include "instruction_set.h"
#include "model/checks.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_runner/model_container_runner_cpu.h>
#include <torch/version.h>

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

namespace equistride {
namespace {

using Program = torch::inductor::AOTIModelContainerRunnerCpu;

constexpr char AGAIN[] = "; export it again on this machine with `equistride export --container aoti`";

constexpr char CHECKSUM[] = "extra/program.crc32";

// Programs are compiled for two atoms and two edges or more, so every frame gets two atoms more, which are bound to one
// another alone: the others do not feel them.
constexpr std::int64_t EXTRA = 2;

/// An exchange that knows nothing of the extra atoms.
class WithoutExtra final : public Exchange {
public:
    explicit WithoutExtra(Exchange &inner) : inner_(inner) {}
    at::Tensor forward(const at::Tensor &features) override {
        return at::cat({inner_.forward(true_rows(features)), extra_rows(features)});
    }
    at::Tensor backward(const at::Tensor &gradient) override {
        return at::cat({inner_.backward(true_rows(gradient)), extra_rows(gradient)});
    }

private:
    static at::Tensor true_rows(const at::Tensor &all) { return all.narrow(0, 0, all.size(0) - EXTRA); }
    static at::Tensor extra_rows(const at::Tensor &all) { return all.narrow(0, all.size(0) - EXTRA, EXTRA); }

    Exchange &inner_;
};

/// A potential's program takes vectors [E, 3], species [N], edge_index [2, E] and weights [N], and gives atomic
/// energies [N] and the gradient [E, 3] of their weighted sum. A propagator's takes the first three, a group [N] of
/// each atom (0 or 1, neither empty; momenta are kept in each), positions, velocities [N, 3] and the cell, and gives
/// displacements and velocities [N, 3], with momenta kept and then as the network gives them.
class CompiledModel final : public Model {
public:
    CompiledModel(std::unique_ptr<Program> program, Metadata metadata)
        : Model(std::move(metadata)), program_(std::move(program)) {
        dtype_ = metadata_.dtype == "float64" ? at::kDouble : at::kFloat;
        bond_ = at::zeros({EXTRA, 3}, dtype_);
        bond_[0][0] = 0.5 * metadata_.cutoff;
        bond_[1][0] = -0.5 * metadata_.cutoff;
    }

    void to(at::Device device, at::ScalarType dtype) override {
        TORCH_CHECK_VALUE(device == device_ && dtype == dtype_, "the model is compiled, and runs as it is; expected ",
                          metadata_.dtype, " on ", device_, "; found ", dtype == at::kDouble ? "float64" : "float32",
                          " on ", device,
                          "; export it for that, or as TorchScript, which runs on every device and in both precisions");
    }

    bool supports_domain_decomposition() const override { return true; }
    int exchanges() const override { return metadata_.compiled->exchanges; }

protected:
    Outputs run(const Frame &frame, bool) override {
        const std::int64_t n = frame.species.size(0), edges = frame.edge_index.size(1);
        const at::Tensor vectors = edge_vectors(frame).to(dtype_);
        Outputs outputs;
        if (metadata_.kind == "potential") {
            const auto out = potential(vectors, frame, n);
            const at::Tensor gradient = out[1].narrow(0, 0, edges);
            outputs.atomic_energies = out[0].narrow(0, 0, n);
            outputs.forces = at::zeros({n, 3}, dtype_)
                                 .index_add(0, frame.edge_index[0], gradient)
                                 .index_add(0, frame.edge_index[1], gradient.neg());
            outputs.virial = vectors.t().matmul(gradient).neg();
        } else {
            const auto out = propagator(vectors, frame, at::cat({at::zeros(n, at::kLong), at::ones(EXTRA, at::kLong)}));
            outputs.displacements = out[0].narrow(0, 0, n);
            outputs.velocities = out[1].narrow(0, 0, n);
        }
        return outputs;
    }

    PartOutputs run_part(const Frame &frame, std::int64_t owned, bool) override {
        std::optional<WithoutExtra> exchange;
        if (current_exchange())
            exchange.emplace(*current_exchange());
        const ExchangeScope scope(exchange ? &*exchange : nullptr);
        PartOutputs outputs;
        outputs.vectors = edge_vectors(frame);
        const at::Tensor vectors = outputs.vectors.to(dtype_);
        if (metadata_.kind == "potential") {
            const auto out = potential(vectors, frame, owned);
            outputs.atomic_energies = out[0].narrow(0, 0, owned);
            outputs.gradient = out[1].narrow(0, 0, vectors.size(0)).to(at::kDouble);
        } else {
            at::Tensor group = at::ones(frame.species.size(0) + EXTRA, at::kLong);
            group[-1] = 0;
            const auto out = propagator(vectors, frame, group);
            outputs.displacements = out[2].narrow(0, 0, owned);
            outputs.velocities = out[3].narrow(0, 0, owned);
        }
        return outputs;
    }

    Limits limits() const override { return {metadata_.compiled->shortest, metadata_.max_speed}; }

    void apply_system(double charge, double spin) override {
        TORCH_CHECK_VALUE(charge == metadata_.charge && spin == metadata_.spin,
                          "charge and spin are compiled into the model; expected ", metadata_.charge, " and ",
                          metadata_.spin, "; found ", charge, " and ", spin,
                          "; export it for these, or as TorchScript");
    }

private:
    std::vector<at::Tensor> potential(const at::Tensor &vectors, const Frame &frame, std::int64_t owned) {
        at::Tensor weights = at::zeros(frame.species.size(0) + EXTRA, at::kDouble);
        weights.narrow(0, 0, owned).fill_(1);
        return call(vectors, frame, {weights});
    }

    std::vector<at::Tensor> propagator(const at::Tensor &vectors, const Frame &frame, const at::Tensor &group) {
        check_range(vectors, frame, limits().shortest, limits().fastest);
        // Not at one place, where they would have no moment of inertia to share out.
        const at::Tensor apart = bond_.to(at::kDouble), still = at::zeros_like(apart);
        return call(
            vectors, frame,
            {group, at::cat({frame.positions, apart}), at::cat({frame.velocities, still}), frame.cell.contiguous()});
    }

    std::vector<at::Tensor> call(const at::Tensor &vectors, const Frame &frame, std::vector<at::Tensor> more) {
        const GilRelease released;
        const c10::InferenceMode no_inference(false);
        const c10::AutoGradMode no_gradients(false);
        const std::int64_t n = frame.species.size(0);
        const at::Tensor ends = at::tensor({n, n + 1, n + 1, n}, at::kLong).view({2, EXTRA});
        std::vector<at::Tensor> inputs = {at::cat({vectors, bond_}),
                                          at::cat({frame.species, at::zeros(EXTRA, at::kLong)}),
                                          at::cat({frame.edge_index, ends}, 1)};
        inputs.insert(inputs.end(), more.begin(), more.end());
        try {
            return program_->run(inputs);
        } catch (const std::exception &error) {
            TORCH_CHECK(false, "the compiled model failed (", first_line(error.what()),
                        "); the reason is on the standard error");
        }
    }

    static std::string first_line(const std::string &text) { return text.substr(0, text.find('\n')); }

    std::unique_ptr<Program> program_;
    at::Tensor bond_; ///< r_ij of the two edges between the extra atoms
};

/// A folder of our own among the temporary files, while it lives.
class Folder {
public:
    Folder() {
        std::error_code failed;
        path_ = (std::filesystem::temp_directory_path(failed) / "equistride-XXXXXX").string();
        TORCH_CHECK_VALUE(!failed && ::mkdtemp(path_.data()),
                          "no temporary folder can be made to unpack the model; set "
                          "TMPDIR to a folder with room");
    }
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    Folder(const Folder &) = delete;
    Folder &operator=(const Folder &) = delete;
    const std::string &path() const { return path_; }

private:
    std::string path_;
};

/// The checksum of zip and zlib. Torch's reader does not look at it, and damaged machine code would run.
std::uint32_t crc32(const std::string &bytes) {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t k = 0; k < 256; k++) {
        table[k] = k;
        for (int bit = 0; bit < 8; bit++)
            table[k] = (table[k] >> 1) ^ (table[k] & 1 ? 0xEDB88320U : 0U);
    }
    std::uint32_t sum = ~0U;
    for (const char byte : bytes)
        sum = (sum >> 8) ^ table[(sum ^ static_cast<unsigned char>(byte)) & 0xFFU];
    return ~sum;
}

void check_target(const Metadata &metadata, const std::string &name) {
    TORCH_CHECK_VALUE(metadata.compiled, name, " does not say what it was compiled for", AGAIN);
    const Compiled &target = *metadata.compiled;
    const auto need = [&](const char *what, const std::string &compiled_for, const std::string &here, bool fits) {
        TORCH_CHECK_VALUE(fits, name, " was compiled for another ", what, "; expected ", here, "; found ", compiled_for,
                          AGAIN);
    };
    const std::string version = c10::str(TORCH_VERSION_MAJOR, ".", TORCH_VERSION_MINOR);
    need("torch", target.torch, version, target.torch.starts_with(version + "."));
    need("device", target.device, "cpu", target.device == "cpu");
    utsname host{};
    uname(&host);
    need("kind of processor", target.machine, host.machine, target.machine == host.machine);
    constexpr std::array NAMES = {"portable", "avx2",
                                  "avx512"}; // as InstructionSet has them, each with the ones before
    const auto best = static_cast<std::size_t>(instruction_set());
    const auto needed = std::find(NAMES.begin(), NAMES.end(), target.instruction_set);
    need("instruction set", target.instruction_set, c10::str(NAMES[best], " at most"), needed <= NAMES.begin() + best);
}

// The library stays mapped when its file is gone, so that nothing is left behind, however the process ends.
std::unique_ptr<Program> open_program(std::shared_ptr<const std::string> bytes, const std::string &name) {
    const Folder folder;
    caffe2::serialize::PyTorchStreamReader reader(std::make_shared<MemoryReader>(std::move(bytes)));
    const auto read = [&](const std::string &record) {
        const auto [data, size] = reader.getRecord(record);
        return std::string(static_cast<const char *>(data.get()), size);
    };
    std::string library;
    for (const std::string &entry : reader.getAllRecords()) {
        const std::filesystem::path record(entry);
        if (!entry.starts_with("data/aotinductor/") || (record.extension() != ".so" && record.extension() != ".json"))
            continue;
        const std::string path = (std::filesystem::path(folder.path()) / record.filename()).string();
        const std::string content = read(entry);
        if (record.extension() == ".so") {
            library = path;
            TORCH_CHECK_VALUE(reader.hasRecord(CHECKSUM) && read(CHECKSUM) == std::to_string(crc32(content)), name,
                              " is damaged: its program is not the one that was compiled; copy or download it again");
        }
        std::ofstream file(path, std::ios::binary);
        file.write(content.data(), static_cast<std::streamsize>(content.size()));
        file.close();
        TORCH_CHECK_VALUE(file.good(), name, " cannot be unpacked into ", path, "; set TMPDIR to a folder with room");
    }
    TORCH_CHECK_VALUE(!library.empty(), name, " holds no program", AGAIN);
    return std::make_unique<Program>(library);
}

} // namespace

std::unique_ptr<Model> load_aoti(std::shared_ptr<const std::string> bytes, Metadata metadata, const std::string &name) {
    check_target(metadata, name);
    try {
        return std::make_unique<CompiledModel>(open_program(std::move(bytes), name), std::move(metadata));
    } catch (const c10::ValueError &) {
        throw;
    } catch (const std::exception &error) {
        const auto *torch_error = dynamic_cast<const c10::Error *>(&error);
        C10_THROW_ERROR(ValueError,
                        c10::str(name, " cannot be loaded by this torch (",
                                 torch_error ? torch_error->what_without_backtrace() : error.what(), ")", AGAIN));
    }
}

} // namespace equistride
