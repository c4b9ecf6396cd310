// The AOTInductor container.

#include "artifact/archive.h"
#include "artifact/crc32.h"
#include "gil.h"
#include "instruction_set.h"
#include "model/container.h"
#include "model/declaration.h"
#include "model/exchange.h"
#include "threads.h"

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
/// energies [N] and the gradient [E, 3] of their weighted sum. A propagator's takes the first three and velocities
/// [N, 3], and gives displacements and velocities [N, 3] as the network does. (In format 1 it also takes a group of
/// each atom, positions and the cell, and gives the two with momenta kept first.)
class CompiledContainer final : public Container {
public:
    CompiledContainer(std::unique_ptr<Program> program, const Metadata &metadata)
        : program_(std::move(program)), format_(metadata.format_version),
          dtype_(metadata.dtype == "float64" ? at::kDouble : at::kFloat), bond_(at::zeros({EXTRA, 3}, dtype_)) {
        bond_[0][0] = 0.5 * metadata.cutoff;
        bond_[1][0] = -0.5 * metadata.cutoff;
        std::vector<at::Tensor> constants;
        for (const auto &[name, tensor] : program_->extract_constants_map(/*use_inactive=*/false))
            constants.push_back(tensor);
        work_of_an_edge_ = work_of_an_edge(constants);
    }

    void to(at::Device device, at::ScalarType dtype) override {
        const auto name = [](at::ScalarType type) { return type == at::kDouble ? "float64" : "float32"; };
        TORCH_CHECK_VALUE(device.is_cpu() && dtype == dtype_, "the model is compiled, and runs as it is; expected ",
                          name(dtype_), " on cpu; found ", name(dtype), " on ", device,
                          "; export it for that, or as TorchScript, which runs on every device and in both precisions");
    }

    void set_system(double, double) override {} // they are fixed, and the Model has held them against the file's
    void set_stride(std::size_t) override {}    // there is one

    Energies energies(const at::Tensor &vectors, const at::Tensor &species, const at::Tensor &edge_index,
                      std::int64_t count, bool) override {
        const std::int64_t n = species.size(0);
        at::Tensor weights = at::zeros(n + EXTRA, at::kDouble);
        weights.narrow(0, 0, count).fill_(1);
        const auto out = call(vectors, species, edge_index, {weights});
        return {out[0].narrow(0, 0, n), out[1].narrow(0, 0, vectors.size(0))};
    }

    Stride stride(const at::Tensor &vectors, const at::Tensor &velocities, const at::Tensor &species,
                  const at::Tensor &edge_index) override {
        const std::int64_t n = species.size(0);
        const at::Tensor all = at::cat({velocities, at::zeros({EXTRA, 3}, velocities.options())});
        std::vector<at::Tensor> more = {all};
        if (format_ == 1) { // momenta of two groups, none empty, are kept in what is not looked at
            const at::Tensor group = at::ones(n + EXTRA, at::kLong);
            const at::Tensor places = at::arange(3 * (n + EXTRA), at::kDouble).sin().view({-1, 3});
            group[-1] = 0;
            more = {group, places, all, at::eye(3, at::kDouble)};
        }
        auto out = call(vectors, species, edge_index, more);
        out.erase(out.begin(), out.end() - 2);
        return {out[0].narrow(0, 0, n), out[1].narrow(0, 0, n)};
    }

    Outputs whole(const Frame &) override { TORCH_CHECK(false, "a compiled model gives energies or strides alone"); }
    at::Tensor uncertainty(const Frame &) override { TORCH_CHECK(false, "a compiled model is no ensemble"); }

private:
    std::vector<at::Tensor> call(const at::Tensor &vectors, const at::Tensor &species, const at::Tensor &edge_index,
                                 const std::vector<at::Tensor> &more) {
        const GilRelease released;
        const c10::InferenceMode no_inference(false);
        const c10::AutoGradMode no_gradients(false);
        std::optional<WithoutExtra> exchange;
        if (current_exchange())
            exchange.emplace(*current_exchange());
        const ExchangeScope scope(exchange ? &*exchange : nullptr);
        const TorchThreads threads(static_cast<double>(edge_index.size(1)) * work_of_an_edge_);
        const std::int64_t n = species.size(0);
        const at::Tensor ends = at::tensor({n, n + 1, n + 1, n}, at::kLong).view({2, EXTRA});
        std::vector<at::Tensor> inputs = {at::cat({vectors, bond_}), at::cat({species, at::zeros(EXTRA, at::kLong)}),
                                          at::cat({edge_index, ends}, 1)};
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
    int format_;
    at::ScalarType dtype_;
    at::Tensor bond_; ///< r_ij of the two edges between the extra atoms
    double work_of_an_edge_ = 0;
};

// The program cannot be looked into: it is held against what the compiler noted of it.
void hold_against_program(Metadata &metadata, const std::string &name) {
    Contract &contract = metadata.contract;
    const int exchanges = metadata.compiled->exchanges;
    if (metadata.format_version == 1) {
        contract.decomposable = true;
        contract.batched = metadata.is_potential();
        contract.angular_momentum = !metadata.is_potential();
        if (exchanges > 0)
            contract.operators["equistride::exchange"] = 1;
        if (metadata.charge_spin != Metadata::ChargeSpin::none)
            metadata.charge_spin = Metadata::ChargeSpin::fixed;
        return;
    }
    refuse_unless(metadata.strides_fs.size() < 2, name, "strides_fs", "one stride",
                  metadata.strides_in_words() + " fs");
    refuse_unless(metadata.compiled->cutoff == metadata.cutoff, name, "the cutoff",
                  c10::str(metadata.compiled->cutoff, " A"), c10::str(metadata.cutoff, " A"));
    refuse_unless(exchanges == 0 || exchanges + 1 == contract.message_passing_steps, name, "message_passing_steps",
                  std::to_string(exchanges + 1), std::to_string(contract.message_passing_steps));
    refuse_unless(contract.exchanges() == (exchanges > 0), name, "operators",
                  c10::str(exchanges, " calls of equistride::exchange"),
                  contract.exchanges() ? "equistride::exchange" : "none of this name");
    refuse_unless(!contract.padded && !contract.uncertainty && contract.decomposable, name, "capabilities",
                  "decomposable, and neither padded nor uncertainty", "others");
    refuse_unless(metadata.charge_spin != Metadata::ChargeSpin::input, name, "charge_spin", "fixed", "input");
}

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
std::unique_ptr<Program> open_program(const Content &content, const std::string &name) {
    const Folder folder;
    caffe2::serialize::PyTorchStreamReader reader(std::make_shared<ContentReader>(content));
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
        const std::string found = read(entry);
        if (record.extension() == ".so") {
            library = path;
            TORCH_CHECK_VALUE(reader.hasRecord(CHECKSUM) && read(CHECKSUM) == std::to_string(crc32(found)), name,
                              " is damaged: its program is not the one that was compiled; copy or download it again");
        }
        std::ofstream file(path, std::ios::binary);
        file.write(found.data(), static_cast<std::streamsize>(found.size()));
        file.close();
        TORCH_CHECK_VALUE(file.good(), name, " cannot be unpacked into ", path, "; set TMPDIR to a folder with room");
    }
    TORCH_CHECK_VALUE(!library.empty(), name, " holds no program", AGAIN);
    return std::make_unique<Program>(library);
}

} // namespace

std::unique_ptr<Container> load_aoti(const Content &content, Metadata &metadata, const std::string &name) {
    check_operators(metadata, name);
    check_target(metadata, name);
    hold_against_program(metadata, name);
    try {
        return std::make_unique<CompiledContainer>(open_program(content, name), metadata);
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
