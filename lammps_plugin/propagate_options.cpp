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

// Keywords with their values.
std::map<std::string, std::vector<std::string>> sorted(const std::vector<std::string> &words) {
    static const std::map<std::string, std::size_t> COUNTS = {
        {"temp", 3},    {"thermostat", 1}, {"friction", 1}, {"seed", 1},   {"guard", 2},     {"bound", 1}, {"mode", 1},
        {"rescale", 1}, {"substep", 1},    {"ghost", 1},    {"device", 1}, {"precision", 1}, {"trust", 1}};
    std::map<std::string, std::vector<std::string>> found;
    for (std::size_t k = 0; k < words.size();) {
        const auto known = COUNTS.find(words[k]);
        TORCH_CHECK_VALUE(known != COUNTS.end(), "the keyword ", words[k],
                          " is not known; expected temp, thermostat, friction, seed, guard, bound, mode, rescale, ",
                          "substep, ghost, device, precision or trust");
        TORCH_CHECK_VALUE(!found.count(words[k]), "the keyword ", words[k], " is there twice; give it once");
        TORCH_CHECK_VALUE(k + known->second < words.size(), "the keyword ", words[k], " has too few values; expected ",
                          known->second);
        const auto first = words.begin() + static_cast<std::ptrdiff_t>(k) + 1;
        found[words[k]] = {first, first + static_cast<std::ptrdiff_t>(known->second)};
        k += 1 + known->second;
    }
    for (const char *keyword : {"thermostat", "friction"})
        TORCH_CHECK_VALUE(!found.count(keyword) || found.count("temp"), "`", keyword,
                          "` is the thermostat's, and there is none; add `temp`");
    for (const char *keyword : {"bound", "mode", "rescale", "substep"})
        TORCH_CHECK_VALUE(!found.count(keyword) || found.count("guard"), "`", keyword,
                          "` is the guard's, and there is none; add `guard`");
    return found;
}

} // namespace

bool read_trust(const std::vector<std::string> &words) {
    const auto given = sorted(words);
    const auto trust = given.find("trust");
    return trust != given.end() && one_of({"yes", "no"}, "trust", trust->second[0]) == "yes";
}

PropagateOptions read_options(const std::vector<std::string> &words, double femtoseconds, double stride_fs) {
    const auto given = sorted(words);
    PropagateOptions options;
    const auto has = [&](const char *keyword) { return given.count(keyword) > 0; };
    const auto value = [&](const char *keyword, std::size_t k = 0) { return given.at(keyword)[k]; };
    if (has("temp")) {
        options.start = number("temp", value("temp", 0), 0);
        options.stop = number("temp", value("temp", 1), 0);
        const double tau = number("temp", value("temp", 2), 0) * femtoseconds;
        TORCH_CHECK_VALUE(options.start > 0 && options.stop > 0 && tau > 0,
                          "the thermostat needs temperatures and a time above 0, as in `temp 300 300 0.075`");
        std::string kind = has("thermostat")
                               ? one_of({"langevin+csvr", "langevin", "csvr"}, "thermostat", value("thermostat"))
                               : "langevin+csvr";
        const double friction = has("friction") ? number("friction", value("friction"), 0) / femtoseconds : -1;
        TORCH_CHECK_VALUE(friction < 0 || kind == "langevin+csvr", "`friction` is that of langevin+csvr; found ", kind,
                          kind == "csvr" ? ", which has none; leave it out"
                                         : ", whose friction is 1 / TAU of `temp`; leave it out");
        if (friction == 0)
            kind = "csvr";
        const double slow = friction < 0 ? FRICTION_STRIDES * stride_fs : 1.0 / friction;
        const bool both = kind == "langevin+csvr";
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
    if (has("ghost"))
        options.ghost = one_of(GHOST_CHOICES, "ghost", value("ghost"));
    if (has("device"))
        options.device = one_of(DEVICE_CHOICES, "device", value("device"));
    if (has("precision"))
        options.precision = one_of(PRECISION_CHOICES, "precision", value("precision"));
    return options;
}

} // namespace equistride::lammps
