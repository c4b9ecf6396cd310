#include "artifact/trust.h"

#include "artifact/sha256.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <mutex>
#include <set>

namespace equistride {
namespace {

constexpr char VARIABLE[] = "EQUISTRIDE_TRUST_COMPILED";

std::mutex guard;

std::set<std::string> &trusted() {
    static std::set<std::string> digests;
    return digests;
}

} // namespace

void trust_compiled(std::string_view bytes) {
    std::string digest = sha256(bytes);
    const std::lock_guard<std::mutex> alone(guard);
    trusted().insert(std::move(digest));
}

void require_trust(std::string_view bytes, const std::string &name) {
    const char *const all = std::getenv(VARIABLE);
    if (all && std::string_view(all) == "1")
        return;
    const std::string digest = sha256(bytes);
    const std::lock_guard<std::mutex> alone(guard);
    TORCH_CHECK_VALUE(trusted().contains(digest), name,
                      " is compiled: machine code that can do whatever you can; expected your word that you trust who "
                      "made it; give it with trust_compiled=True (Python), --trust (command line), `trust yes` "
                      "(LAMMPS) or ",
                      VARIABLE, "=1");
}

} // namespace equistride
