#include "settings.h"

#include "atom.h"
#include "domain.h"
#include "force.h"
#include "group.h"
#include "lammps.h"
#include "neighbor.h"

#include <c10/util/Exception.h>

#include <array>

namespace equistride::lammps {
namespace {

constexpr int ALL = 1; // the bit of the group all

} // namespace

int outside_of(const LAMMPS_NS::LAMMPS &lmp) {
    const LAMMPS_NS::Neighbor &lists = *lmp.neighbor;
    int outside = 0;
    for (int k = 0; k < lists.nex_group; k++) {
        const int first = lmp.group->bitmask[lists.ex1_group[k]], second = lmp.group->bitmask[lists.ex2_group[k]];
        if (first == ALL || second == ALL)
            outside |= first == ALL ? second : first;
    }
    return outside;
}

Notes check_settings(const LAMMPS_NS::LAMMPS &lmp, const std::vector<std::int64_t> &species) {
    const LAMMPS_NS::Atom &atom = *lmp.atom;
    const LAMMPS_NS::Neighbor &lists = *lmp.neighbor;
    TORCH_CHECK_VALUE(lmp.domain->dimension == 3, "atoms are three-dimensional; expected `dimension 3`; found 2");
    TORCH_CHECK_VALUE(!atom.firstgroupname, "a model of all atoms needs lists and ghosts of all; take out ",
                      "`atom_modify first`, `neigh_modify include` and `comm_modify group`");
    const int outside = outside_of(lmp);
    const double *weights = lmp.force->special_lj;
    const bool weighed = weights[1] != 1 || weights[2] != 1 || weights[3] != 1;
    // What this process's atoms show: the Notes, then groups, of which they are in both or in one.
    std::array<int, 4> mine{}, all{};
    std::vector<int> groups(static_cast<std::size_t>(lists.nex_group) * 2, 0), all_groups(groups.size());
    for (int i = 0; i < atom.nlocal; i++) {
        if (species[static_cast<std::size_t>(atom.type[i])] < 0)
            continue;
        const int mask = atom.mask[i];
        mine[1] |= atom.q_flag && atom.q[i] != 0;
        mine[2] |= weighed && atom.nspecial && atom.nspecial[i][2] > 0;
        if (mask & outside) {
            mine[0] = 1;
            continue;
        }
        for (int k = 0; k < lists.nex_mol; k++)
            mine[3] |= (mask & lmp.group->bitmask[lists.ex_mol_group[k]]) != 0;
        for (int k = 0; k < lists.nex_group; k++) {
            int *const both = &groups[2 * static_cast<std::size_t>(k)];
            both[0] |= (mask & lmp.group->bitmask[lists.ex1_group[k]]) != 0;
            both[1] |= (mask & lmp.group->bitmask[lists.ex2_group[k]]) != 0;
        }
    }
    MPI_Allreduce(mine.data(), all.data(), static_cast<int>(mine.size()), MPI_INT, MPI_MAX, lmp.world);
    MPI_Allreduce(groups.data(), all_groups.data(), static_cast<int>(groups.size()), MPI_INT, MPI_MAX, lmp.world);
    bool cut = all[3] != 0;
    for (std::size_t k = 0; k < all_groups.size(); k += 2)
        cut |= all_groups[k] && all_groups[k + 1];
    for (int k = 0; k < lists.nex_type; k++)
        cut |= species[static_cast<std::size_t>(lists.ex1_type[k])] >= 0 &&
               species[static_cast<std::size_t>(lists.ex2_type[k])] >= 0;
    TORCH_CHECK_VALUE(!cut, "a model of all atoms cannot leave out pairs; take out `neigh_modify exclude` and its "
                            "relatives, or take out whole atoms by `neigh_modify exclude group ID all`");
    return {all[0] != 0, all[1] != 0, all[2] != 0};
}

} // namespace equistride::lammps
