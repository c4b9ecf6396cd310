#include "propagate_options.h"

#include "ghosts.h"
#include "host.h"

#include <cmath>
#include <limits>

namespace equistride::lammps {
namespace {

// Whole numbers up to here are exact in double precision.
constexpr double EXACT = 9007199254740992.0;

double whole(const std::string &keyword, const std::string &word, double least) {
    const double value = number(keyword, word, least);
    TORCH_CHECK_VALUE(value == std::floor(value) && value <= EXACT, "a value of ", keyword,
                      " is wrong; expected a whole number up to ", EXACT, "; found ", word);
    return value;
}

} // namespace

Keywords propagate_keywords(const std::vector<std::string> &words) {
    Keywords given(words, {{"temp", 3},
                           {"thermostat", 1},
                           {"friction", 1},
                           {"seed", 1},
                           {"guard", 2},
                           {"bound", 1},
                           {"mode", 1},
                           {"rescale", 1},
                           {"substep", 1},
                           {"press", 2},
                           {"axes", 1},
                           {"ghost", 1},
                           {"device", 1},
                           {"precision", 1},
                           {"trust", 1}});
    for (const char *keyword : {"thermostat", "friction"})
        TORCH_CHECK_VALUE(!given.has(keyword) || given.has("temp"), "`", keyword,
                          "` is the thermostat's, and there is none; add `temp`");
    for (const char *keyword : {"bound", "mode", "rescale", "substep"})
        TORCH_CHECK_VALUE(!given.has(keyword) || given.has("guard"), "`", keyword,
                          "` is the guard's, and there is none; add `guard`");
    TORCH_CHECK_VALUE(!given.has("axes") || given.has("press"),
                      "`axes` is the barostat's, and there is none; add `press`");
    for (const char *other : {"guard", "temp"})
        TORCH_CHECK_VALUE(!given.has("press") || given.has(other),
                          "`press` goes by the energy of a guard's potential and by a temperature; add `", other, "`");
    return given;
}

PropagateOptions read_options(const Keywords &given, const RunUnits &units, double stride_fs) {
    const double femtoseconds = units.femtoseconds;
    PropagateOptions options;
    const auto has = [&](const char *keyword) { return given.has(keyword); };
    const auto value = [&](const char *keyword, std::size_t k = 0) { return given.value(keyword, k); };
    if (has("temp")) {
        options.start = number("temp", value("temp", 0), 0);
        options.stop = number("temp", value("temp", 1), 0);
        const double tau = number("temp", value("temp", 2), 0) * femtoseconds;
        TORCH_CHECK_VALUE(options.start > 0 && options.stop > 0 && tau > 0,
                          "the thermostat needs temperatures and a time above 0, as in `temp 300 300 0.075`");
        std::string kind = given.choice("thermostat", {"langevin+csvr", "langevin", "csvr"}, "langevin+csvr");
        const double friction = has("friction") ? number("friction", value("friction"), 0) / femtoseconds : -1;
        TORCH_CHECK_VALUE(friction < 0 || kind == "langevin+csvr", "`friction` is that of langevin+csvr; found ", kind,
                          kind == "csvr" ? ", which has none; leave it out"
                                         : ", whose friction is 1 / TAU of `temp`; leave it out");
        if (friction == 0)
            kind = "csvr";
        const double slow = friction < 0 ? FRICTION_STRIDES * stride_fs : 1.0 / friction;
        const bool both = kind == "langevin+csvr";
        options.by_stride = both && friction < 0;
        options.thermostat = {kind, options.start, both ? slow : tau, both ? tau : 0};
    }
    if (has("seed"))
        options.seed = static_cast<std::uint64_t>(whole("seed", value("seed"), 0));
    if (has("guard")) {
        options.guard_file = value("guard", 0);
        options.guard.every = static_cast<std::int64_t>(whole("guard", value("guard", 1), 1));
        if (has("bound"))
            options.guard.bound =
                value("bound") == "none" ? std::numeric_limits<double>::infinity() : number("bound", value("bound"), 0);
        if (has("mode"))
            options.guard.mode = value("mode");
        if (has("rescale"))
            options.guard.rescale = one_of({"yes", "no"}, "rescale", value("rescale")) == "yes";
        if (has("substep"))
            options.guard.substep = number("substep", value("substep"), 0);
        options.guard.check();
    }
    if (has("press")) {
        options.barostat.emplace();
        options.barostat->pressure = number("press", value("press", 0)) * units.bar;
        options.barostat->every = static_cast<std::int64_t>(whole("press", value("press", 1), 1));
        if (has("axes"))
            options.barostat->axes = value("axes");
        options.barostat->check();
    }
    options.ghost = given.choice("ghost", GHOST_CHOICES, options.ghost);
    options.device = given.choice("device", DEVICE_CHOICES, options.device);
    options.precision = given.choice("precision", PRECISION_CHOICES, options.precision);
    return options;
}

} // namespace equistride::lammps
