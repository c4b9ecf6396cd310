// fix equistride/propagate: strides of an artifact of the kind propagator.
#pragma once

#include "divided_evaluation.h"
#include "mpi_communicator.h"
#include "propagate_options.h"
#include "propagation/propagation.h"

#include "fix.h"

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
    /// A model on LAMMPS's atoms.
    struct Served {
        std::unique_ptr<Model> model;
        GhostPolicy ghosts;
        std::unique_ptr<Evaluation> evaluation;
    };

    Served serve(std::unique_ptr<Model> model, const GhostPolicy &ghosts);
    void read_words(const std::vector<std::string> &words);
    void take_step(); // the time step that is set
    void check_run() const;
    void check_masses() const;
    void stride();
    double target() const;
    std::array<double, 4> trace_of(const State &state, const Particles &particles);
    bool moved_by_others(const std::array<double, 4> &now) const;

    GhostExchange exchange_;
    MpiCommunicator communicator_;
    std::vector<std::string> elements_; // of each type, from 1
    std::vector<std::int64_t> species_; // the propagator's, of each type, from 1
    PropagateOptions options_;
    Served network_, potential_;
    std::optional<Propagation> run_;
    LocalAtoms own_;
    std::optional<std::array<double, 4>> trace_; // of the atoms where the last stride left them, for the guard
};

} // namespace equistride::lammps
