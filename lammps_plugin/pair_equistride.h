// pair_style equistride: energies, forces and virials of an artifact of the kind potential.
#pragma once

#include "ghost_exchange.h"

#include "pair.h"

#include <memory>
#include <optional>
#include <set>
#include <utility>

namespace equistride::lammps {

class PairEquistride final : public LAMMPS_NS::Pair {
public:
    explicit PairEquistride(LAMMPS_NS::LAMMPS *lmp);
    ~PairEquistride() override;

    void settings(int count, char **words) override;
    void coeff(int count, char **words) override;
    void init_style() override;
    double init_one(int first, int second) override;
    void setup() override;
    void compute(int eflag, int vflag) override;

    void write_restart(FILE *file) override;
    void read_restart(FILE *file) override;
    void write_restart_settings(FILE *file) override;
    void read_restart_settings(FILE *file) override;

    int pack_forward_comm(int n, int *list, double *buf, int, int *) override {
        return exchange_.pack_forward(n, list, buf);
    }
    void unpack_forward_comm(int n, int first, double *buf) override { exchange_.unpack_forward(n, first, buf); }
    int pack_reverse_comm(int n, int first, double *buf) override { return exchange_.pack_reverse(n, first, buf); }
    void unpack_reverse_comm(int n, int *list, double *buf) override { exchange_.unpack_reverse(n, list, buf); }

private:
    void read_settings(const std::vector<std::string> &words);
    void read_coefficients(const std::vector<std::string> &words);
    void warn_of_masses() const;
    void warn(const std::string &sentence) const;
    void evaluate();
    Frame whole() const;
    void evaluate_whole();
    void evaluate_part();
    void check_uncertainty();
    void check_distances(const Frame &frame);
    void broken(const char *bound, const std::string &sentence);
    void tally(const at::Tensor &energies, const at::Tensor &forces, const at::Tensor &w);
    void tally_atom(int i, const double *r, const double *g);

    GhostExchange exchange_;
    LocalAtoms local_;
    std::unique_ptr<Model> model_;
    std::vector<std::int64_t> species_; // of each type, from 1
    std::vector<std::string> settings_, coefficients_;
    std::string device_ = "auto", ghost_choice_ = "auto", precision_ = "auto";
    std::optional<double> threshold_, distance_, charge_, spin_; // eV/A, A, e, multiplicity
    bool stops_ = true;                                          // where a bound is broken
    std::set<std::string> told_;
    bool check_ = true;
    bool trust_ = false;
    GhostPolicy ghosts_;
    std::set<std::pair<int, int>> asked_; // pairs of types that LAMMPS wants of this style
    double energy_unit_ = 1;              // LAMMPS's units in 1 eV
};

} // namespace equistride::lammps
