// fix equistride/propagate: strides of an artifact of the kind propagator.
#pragma once

#include "collective.h"
#include "ghost_exchange.h"
#include "guard.h"
#include "propagation/thermostat.h"

#include "fix.h"

#include <memory>

namespace equistride::lammps {

class FixPropagate final : public LAMMPS_NS::Fix {
public:
    FixPropagate(LAMMPS_NS::LAMMPS *lmp, int count, char **words);

    int setmask() override;
    void init() override;
    void setup(int) override;
    void initial_integrate(int) override;
    void write_restart(FILE *file) override;
    void restart(char *bytes) override;
    double compute_vector(int place) override;

    int pack_forward_comm(int n, int *list, double *buf, int, int *) override {
        return exchange_.pack_forward(n, list, buf);
    }
    void unpack_forward_comm(int n, int first, double *buf) override { exchange_.unpack_forward(n, first, buf); }
    int pack_reverse_comm(int n, int first, double *buf) override { return exchange_.pack_reverse(n, first, buf); }
    void unpack_reverse_comm(int n, int *list, double *buf) override { exchange_.unpack_reverse(n, list, buf); }

private:
    std::size_t read_model(const std::vector<std::string> &words);
    void read_options(const std::vector<std::string> &words, std::size_t first);
    void check_step() const;
    void check_run();
    void check_masses() const;
    void choose_ghosts();
    void stride();
    void read_atoms();
    State network(const at::Tensor &velocities);
    void heat(at::Tensor &velocities, const at::Tensor &positions);
    at::Tensor noise();
    double target() const;

    GhostExchange exchange_;
    Collective collective_;
    LocalAtoms local_;
    std::unique_ptr<Model> model_;
    std::unique_ptr<DividedGuard> guard_;
    std::vector<std::string> elements_;
    std::vector<std::int64_t> species_; // of each type, from 1
    at::Tensor masses_;                 // [n, 1] amu of the own atoms, as trained
    std::string ghost_choice_ = "auto", device_ = "auto", precision_ = "auto";
    Ghosts ghosts_ = Ghosts::local;
    int message_passing_steps_ = 1;
    bool conserves_angular_momentum_ = false; // open along all axes: angular momentum is kept
    double start_ = 0, stop_ = 0;             // K; 0 without a thermostat
    double relaxation_ = 0;                   // LAMMPS's unit of time
    double friction_ = -1;                    // 1 / LAMMPS's unit of time; below 0: 1 / FRICTION_STRIDES strides
    SplitMix64 random_{0};
};

} // namespace equistride::lammps
