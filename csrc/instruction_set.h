// Which of the versions of the inner loops runs.
#pragma once
#include <c10/util/Exception.h>
#include <cstdlib>
#include <string_view>

namespace equistride {

enum class InstructionSet { portable, avx2, avx512 };

// The best this processor runs, or what the environment variable EQUISTRIDE_SIMD names (as for the neighbour list).
inline InstructionSet instruction_set() {
    const char *forced = std::getenv("EQUISTRIDE_SIMD");
    const std::string_view name = forced == nullptr ? "" : forced;
#if defined(__x86_64__) && defined(__GNUC__)
    if ((name.empty() || name == "avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return InstructionSet::avx512;
    if ((name.empty() || name == "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return InstructionSet::avx2;
#endif
    TORCH_CHECK_VALUE(name.empty() || name == "portable" || name == "wide",
                      "EQUISTRIDE_SIMD names an instruction set; expected portable, or avx2 or avx512 where the "
                      "processor has it; found ",
                      name, "; unset it to let the processor choose");
    return InstructionSet::portable;
}

} // namespace equistride
