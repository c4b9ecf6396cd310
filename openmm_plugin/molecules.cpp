#include "molecules.h"

#include <cmath>
#include <map>
#include <set>

using OpenMM::Vec3;

namespace equistride {
namespace {

using Bonds = std::vector<std::pair<int, int>>;

/// Whole lattice vectors between the nearest images of two atoms and the atoms as they are.
Vec3 image(Vec3 apart, const Vec3 (&box)[3]) {
    Vec3 whole;
    for (int k = 2; k >= 0; k--) {
        whole[k] = std::nearbyint(apart[k] / box[k][k]);
        apart -= box[k] * whole[k];
    }
    return whole;
}

} // namespace

Bonds bonds_of_molecules(const Bonds &bonds, const std::vector<Vec3> &positions, const Vec3 (&box)[3]) {
    std::map<int, std::vector<int>> neighbors;
    for (const auto &[first, second] : bonds) {
        neighbors[first].push_back(second);
        neighbors[second].push_back(first);
    }
    std::map<int, Vec3> cells; // of the atoms that were met, in lattice vectors
    std::set<int> networks;
    for (const auto &[start, ignored] : neighbors) {
        if (!cells.try_emplace(start).second)
            continue;
        std::vector<int> molecule = {start};
        bool network = false;
        for (std::size_t next = 0; next < molecule.size(); next++) {
            const int from = molecule[next];
            for (const int to : neighbors.at(from)) {
                const Vec3 cell = cells.at(from) - image(positions.at(to) - positions.at(from), box);
                const auto [known, fresh] = cells.try_emplace(to, cell);
                if (fresh)
                    molecule.push_back(to);
                else
                    network = network || known->second != cell;
            }
        }
        if (network)
            networks.insert(molecule.begin(), molecule.end());
    }
    Bonds kept;
    for (const auto &bond : bonds)
        if (!networks.contains(bond.first))
            kept.push_back(bond);
    return kept;
}

} // namespace equistride
