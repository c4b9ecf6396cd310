// Which of the versions of the inner loops runs.
#pragma once

namespace equistride {

enum class InstructionSet { portable, avx2, avx512 };

/// The best this processor runs, or what the environment variable EQUISTRIDE_SIMD names: portable, avx2, avx512, or
/// wide, which is portable with 64-bit keys in neighbour lists. Throws where the processor cannot run it.
InstructionSet instruction_set();
/// Whether the environment variable names `wide`.
bool wide_keys();

/// Of three versions the one for this processor.
template <class Version> Version for_this_processor(Version portable, Version avx2, Version avx512) {
    const InstructionSet best = instruction_set();
    return best == InstructionSet::avx512 ? avx512 : best == InstructionSet::avx2 ? avx2 : portable;
}

} // namespace equistride
