#include "host.h"

#include "artifact/trust.h"

#include "domain.h"
#include "host_memory.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <thread>

namespace equistride::lammps {

RunUnits units_of(const LAMMPS_NS::Update &update) {
    const std::string_view style = update.unit_style;
    if (style == "metal")
        return {1.0, units::FS_PER_PS, 1.0};
    TORCH_CHECK_VALUE(style == "real",
                      "the units of the run are not known to equistride; expected metal or real; found ",
                      std::string(style), "; begin the input with `units metal`");
    return {units::KJ_MOL_PER_EV / units::KJ_PER_KCAL, 1.0, units::BAR_PER_ATMOSPHERE};
}

double number(const std::string &keyword, const std::string &word, double least) {
    std::size_t end = 0;
    double value = 0;
    try {
        value = std::stod(word, &end);
    } catch (const std::exception &) {
        end = std::string::npos;
    }
    TORCH_CHECK_VALUE(end == word.size() && std::isfinite(value) && value >= least, "a value of ", keyword,
                      " is wrong; expected a number",
                      least > std::numeric_limits<double>::lowest() ? c10::str(" from ", least, " on") : "", "; found ",
                      word);
    return value;
}

const std::string &one_of(const std::vector<std::string> &choices, const std::string &keyword,
                          const std::string &word) {
    TORCH_CHECK_VALUE(std::find(choices.begin(), choices.end(), word) != choices.end(), "the value of ", keyword,
                      " is not known; expected one of ", c10::Join(", ", choices), "; found ", word);
    return word;
}

at::ScalarType precision_of(const std::string &choice, const Model &model) {
    if (choice == "auto")
        return model.dtype();
    return choice == "float64" ? at::kDouble : at::kFloat;
}

at::Tensor cell_of(const LAMMPS_NS::Domain &domain) {
    at::Tensor cell = at::zeros({3, 3}, at::kDouble);
    auto h = cell.accessor<double, 2>();
    h[0][0] = domain.xprd;
    h[1][0] = domain.xy;
    h[1][1] = domain.yprd;
    h[2][0] = domain.xz;
    h[2][1] = domain.yz;
    h[2][2] = domain.zprd;
    for (int k = 0; k < 3; k++)
        if (!domain.periodicity[k])
            cell[k].zero_();
    return cell;
}

void set_cell(LAMMPS_NS::Domain &domain, const at::Tensor &cell) {
    const auto h = cell.accessor<double, 2>();
    const double lengths[3] = {domain.xprd, domain.yprd, domain.zprd};
    for (int k = 0; k < 3; k++) {
        domain.boxlo[k] *= h[k][k] / lengths[k];
        domain.boxhi[k] = domain.boxlo[k] + h[k][k];
    }
    if (domain.triclinic) {
        domain.xy = h[1][0];
        domain.xz = h[2][0];
        domain.yz = h[2][1];
    }
    domain.set_global_box();
    domain.set_local_box();
}

at::Tensor periodicity_of(const LAMMPS_NS::Domain &domain) {
    at::Tensor pbc = at::empty({3}, at::kBool);
    for (int k = 0; k < 3; k++)
        pbc[k] = domain.periodicity[k] != 0;
    return pbc;
}

at::Device choose_device(const std::string &choice, MPI_Comm world) {
    int place = 0, processes = 1;
    MPI_Comm_size(world, &processes);
    if (processes > 1) {
        MPI_Comm computer;
        MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &computer);
        MPI_Comm_rank(computer, &place);
        MPI_Comm_size(computer, &processes);
        MPI_Comm_free(&computer);
    }
    share_computer(processes);
    const bool cuda = at::hasCUDA();
    TORCH_CHECK_VALUE(cuda || choice != "cuda", "there is no GPU that torch can use; expected `device cpu` or `auto`; "
                                                "found `device cuda`");
    if (!cuda || choice == "cpu")
        return at::kCPU;
    const auto count = static_cast<int>(at::detail::getCUDAHooks().deviceCount());
    return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(place % std::max(count, 1)));
}

std::unique_ptr<Model> read_model(const std::string &path, bool trust, MPI_Comm world, bool verify) {
    int me = 0;
    MPI_Comm_rank(world, &me);
    std::string bytes;
    long long size = -1;
    std::error_code none;
    if (me == 0 && std::filesystem::is_regular_file(path, none)) { // a folder throws when it is read
        std::ifstream file(path, std::ios::binary);
        bytes.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
        if (file.good() || file.eof())
            size = static_cast<long long>(bytes.size());
    }
    MPI_Bcast(&size, 1, MPI_LONG_LONG, 0, world);
    TORCH_CHECK_VALUE(size >= 0, "the model file ", path, " cannot be read; expected a file of `equistride export`; ",
                      "check the path");
    bytes.resize(static_cast<std::size_t>(size));
    constexpr long long MOST = 1 << 30;
    for (long long start = 0; start < size; start += MOST)
        MPI_Bcast(bytes.data() + start, static_cast<int>(std::min(MOST, size - start)), MPI_CHAR, 0, world);
    if (trust)
        trust_compiled(bytes);
    return Model::from_content(std::make_shared<const std::string>(std::move(bytes)), path, verify);
}

std::string shared_sentence(std::string sentence, MPI_Comm world) {
    int me = 0, all = 0, first = 0;
    MPI_Comm_rank(world, &me);
    MPI_Comm_size(world, &all);
    const int mine = sentence.empty() ? all : me;
    MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
    if (first == all)
        return {};
    auto size = static_cast<int>(sentence.size());
    MPI_Bcast(&size, 1, MPI_INT, first, world);
    sentence.resize(static_cast<std::size_t>(size));
    MPI_Bcast(sentence.data(), size, MPI_CHAR, first, world);
    return sentence;
}

void end_run(LAMMPS_NS::Error *error, const std::string &style, const std::string &sentence) {
    try {
        error->one(style, 0, LAMMPS_NS::Error::NOLASTLINE, style + ": " + sentence);
    } catch (const LAMMPS_NS::LAMMPSAbortException &) {
        // LAMMPS calls MPI_Abort on the way out, and mpiexec drops what it has not passed on by then: the sentence,
        // in one run of thirty on a busy machine.
        int processes = 1;
        MPI_Comm_size(MPI_COMM_WORLD, &processes);
        if (processes > 1)
            std::this_thread::sleep_for(std::chrono::milliseconds(500));
        throw;
    }
}

} // namespace equistride::lammps
