// The entry of the plugin: LAMMPS loads the library and calls lammpsplugin_init().
//
// A class of another LAMMPS, or of one with other integers or another MPI, would crash later. So nothing of LAMMPS's
// classes is touched before all three are known to be those that the plugin was compiled for.
#include "fix_propagate.h"
#include "pair_equistride.h"

#include "lammps.h"

#include <cstdio>
#include <cstring>
#include <string>

// LAMMPS's C library interface.
extern "C" int lammps_extract_setting(void *, const char *);
extern "C" int lammps_version(void *);

// As LAMMPS's plugin loader expects it.
extern "C" {
struct lammpsplugin_t {
    const char *version, *style, *name, *info, *author;
    union {
        void *(*v1)(void *);
        void *(*v2)(void *, int, char **);
    } creator;
    void *handle;
};
using lammpsplugin_regfunc = void (*)(lammpsplugin_t *, void *);
__attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *regfunc);
}

namespace equistride::lammps {
namespace {

std::string running_version(void *lmp) {
    if (LAMMPS_NS::LAMMPS::has_git_info())
        return LAMMPS_NS::LAMMPS::git_descriptor();
    return std::to_string(lammps_version(lmp));
}

std::string running_mpi() {
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(text, &length);
    return {text, std::min<std::size_t>(std::strlen(text), 60)};
}

// The families whose binary interface is one: MPICH's (also Intel's and Cray's), Open MPI's, or LAMMPS's own stub.
std::string family_of(const std::string &library) {
    for (const char *name : {"Open MPI", "STUB"})
        if (library.find(name) != std::string::npos)
            return name;
    return "MPICH";
}

constexpr const char *compiled_family() {
#if defined(OMPI_MAJOR_VERSION)
    return "Open MPI";
#elif defined(MPI_STUBS)
    return "STUB";
#else
    return "MPICH";
#endif
}

// Why the styles cannot be had; empty where they can.
std::string obstacle(void *lmp) {
    const std::string version = running_version(lmp);
    if (version != EQUISTRIDE_LAMMPS_VERSION)
        return "it was built for another LAMMPS; expected " EQUISTRIDE_LAMMPS_VERSION "; found " + version;
    const std::size_t sizes[] = {sizeof(LAMMPS_NS::tagint), sizeof(LAMMPS_NS::imageint), sizeof(LAMMPS_NS::bigint)};
    const char *names[] = {"tagint", "imageint", "bigint"};
    for (int k = 0; k < 3; k++)
        if (lammps_extract_setting(nullptr, names[k]) != static_cast<int>(sizes[k]))
            return std::string("it was built for a LAMMPS with other integers; expected a ") + names[k] + " of " +
                   std::to_string(sizes[k]) + " bytes; found " +
                   std::to_string(lammps_extract_setting(nullptr, names[k]));
    const std::string mpi = running_mpi();
    if (family_of(mpi) != compiled_family())
        return std::string("it was built for another MPI; expected ") + compiled_family() + "; found " + mpi;
    return {};
}

void *make_pair(void *lmp) { return new PairEquistride(static_cast<LAMMPS_NS::LAMMPS *>(lmp)); }
void *make_fix(void *lmp, int count, char **words) {
    return new FixPropagate(static_cast<LAMMPS_NS::LAMMPS *>(lmp), count, words);
}

} // namespace
} // namespace equistride::lammps

void lammpsplugin_init(void *lmp, void *handle, void *regfunc) {
    using namespace equistride::lammps;
    const std::string reason = obstacle(lmp);
    if (!reason.empty()) {
        std::fprintf(stderr, "equistride's styles are not available: %s; run `python -m equistride.lammps build`\n",
                     reason.c_str());
        return;
    }
    const auto enrol = reinterpret_cast<lammpsplugin_regfunc>(regfunc);
    lammpsplugin_t plugin{};
    plugin.version = static_cast<LAMMPS_NS::LAMMPS *>(lmp)->version;
    plugin.author = "the equistride developers";
    plugin.handle = handle;
    plugin.style = "pair";
    plugin.name = "equistride";
    plugin.info = "equistride " EQUISTRIDE_VERSION ", pair_style equistride";
    plugin.creator.v1 = make_pair;
    enrol(&plugin, lmp);
    plugin.style = "fix";
    plugin.name = "equistride/propagate";
    plugin.info = "equistride " EQUISTRIDE_VERSION ", fix equistride/propagate";
    plugin.creator.v2 = make_fix;
    enrol(&plugin, lmp);
}
