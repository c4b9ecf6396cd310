#include "instruction_set.h"

#include <c10/util/Exception.h>
#include <cstdlib>
#include <string_view>

namespace equistride {
namespace {

std::string_view wanted() {
    const char *name = std::getenv("EQUISTRIDE_SIMD");
    return name == nullptr ? "" : name;
}

} // namespace

InstructionSet instruction_set() {
    const std::string_view name = wanted();
#if defined(__x86_64__) && defined(__GNUC__)
    if ((name.empty() || name == "avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2"))
        return InstructionSet::avx512;
    if ((name.empty() || name == "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return InstructionSet::avx2;
#endif
    TORCH_CHECK_VALUE(name.empty() || name == "portable" || name == "wide",
                      "EQUISTRIDE_SIMD names an instruction set; expected portable, wide, or avx2 or avx512 where the "
                      "processor has it; found ",
                      name, "; unset it to let the processor choose");
    return InstructionSet::portable;
}

bool wide_keys() { return wanted() == "wide"; }

} // namespace equistride
