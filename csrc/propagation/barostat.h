// A Monte Carlo barostat for strides: moves of the box that the energy of the guard's potential takes or refuses.
#pragma once

#include "propagation/checkpoint.h"
#include "propagation/mechanics.h"
#include "propagation/random.h"

#include <string>
#include <vector>

namespace equistride {

struct EQUISTRIDE_API BarostatSettings {
    double pressure = 0;      ///< bar
    std::int64_t every = 10;  ///< strides between moves
    std::string axes = "xyz"; ///< axes that are stretched alike stand together: "xyz", "xy,z", "x,y,z"

    /// Raises c10::ValueError for numbers that make no sense.
    void check() const;
};

/// Metropolis moves of the volume at constant pressure (Chow and Ferguson 1995), in which every atom is moved with the
/// box along one group of axes, drawn for each move. The largest move of a group is adapted until a quarter to three
/// quarters of them are taken. Velocities stay.
class EQUISTRIDE_API Barostat {
public:
    explicit Barostat(BarostatSettings settings);

    /// No move stretches an axis by a larger factor than exp of this, or shrinks it by more: ghosts of other processes
    /// must still be there.
    static constexpr double MOST = 0.05;

    /// Whether a move is due after stride `number` of the run: where a guard of the same interval looks.
    bool due(std::int64_t number) const { return number % settings_.every == 0; }
    /// One move of the atoms and their cell at a temperature [K]; whether it was taken. A box or atoms that the
    /// potential refuses are refused. Every process must call it together.
    bool move(State &state, Particles &particles, double temperature, Potential &potential, Draws &draws);

    /// moves; taken; seconds.
    std::map<std::string, double> statistics() const;
    void save(Checkpoint &checkpoint) const;
    void load(const Checkpoint &checkpoint);

private:
    struct Group {
        std::vector<int> axes;
        double largest = 0.003; // change of the logarithm of an axis
        double tried = 0, taken = 0;

        void count(bool was_taken);
    };

    BarostatSettings settings_;
    std::vector<Group> groups_;
    double moves_ = 0, taken_ = 0, seconds_ = 0;
};

} // namespace equistride
