#include "pair_equistride.h"

#include "composition.h"
#include "elements.h"
#include "evaluation/placement.h"
#include "host.h"
#include "keywords.h"
#include "model/checks.h"
#include "mpi_communicator.h"
#include "settings.h"
#include "words.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "force.h"
#include "memory.h"
#include "modify.h"
#include "utils.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

namespace equistride::lammps {
namespace {

// A mass so far from an element's own is told: no isotope but those of hydrogen are as far apart.
constexpr double OTHER_MASS = 0.2;
constexpr char PAIR[] = "pair equistride";

} // namespace

PairEquistride::PairEquistride(LAMMPS_NS::LAMMPS *lmp)
    : Pair(lmp), exchange_([this](int columns) { comm->forward_comm(this, columns); },
                           [this](int columns) { comm->reverse_comm(this, columns); }) {
    single_enable = 0;
    restartinfo = 1;
    one_coeff = 1;
    manybody_flag = 1;
    no_virial_fdotr_compute = 1;
    centroidstressflag = LAMMPS_NS::CENTROID_AVAIL;
    comm_forward = comm_reverse = GhostExchange::SLOTS;
}

PairEquistride::~PairEquistride() {
    if (allocated) {
        memory->destroy(setflag);
        memory->destroy(cutsq);
    }
}

void PairEquistride::settings(int count, char **words) {
    guarded_together(error, world, PAIR, [&] {
        read_settings(words_of(count, words));
        if (!coefficients_.empty()) // the style is given once more, with other options for the same model
            read_coefficients(std::vector<std::string>(coefficients_));
    });
}

void PairEquistride::read_settings(const std::vector<std::string> &words) {
    threshold_.reset();
    distance_.reset();
    charge_.reset();
    spin_.reset();
    settings_ = words;
    const Keywords given(words, {{"device", 1},
                                 {"ghost", 1},
                                 {"precision", 1},
                                 {"uncertainty_threshold", 1},
                                 {"min_distance", 1},
                                 {"on_bound", 1},
                                 {"charge", 1},
                                 {"spin", 1},
                                 {"check", 1},
                                 {"trust", 1}});
    device_ = given.choice("device", DEVICE_CHOICES, "auto");
    ghost_choice_ = given.choice("ghost", GHOST_CHOICES, "auto");
    precision_ = given.choice("precision", PRECISION_CHOICES, "auto");
    if (given.has("uncertainty_threshold"))
        threshold_ = number("uncertainty_threshold", given.value("uncertainty_threshold"), 0);
    if (given.has("min_distance"))
        distance_ = number("min_distance", given.value("min_distance"), 0);
    stops_ = given.choice("on_bound", {"stop", "warn"}, "stop") == "stop";
    TORCH_CHECK_VALUE(!given.has("on_bound") || threshold_ || distance_, "`on_bound` is that of `min_distance` and ",
                      "`uncertainty_threshold`, and there is none of them; leave it out, or give a bound");
    told_.clear();
    if (given.has("charge"))
        charge_ = number("charge", given.value("charge"));
    if (given.has("spin"))
        spin_ = number("spin", given.value("spin"), 0);
    trust_ = trusted(given);
    check_ = given.choice("check", {"on", "off"}, "on") == "on";
}

void PairEquistride::coeff(int count, char **words) {
    guarded_together(error, world, PAIR, [&] { read_coefficients(words_of(count, words)); });
}

void PairEquistride::read_coefficients(const std::vector<std::string> &words) {
    const int types = atom->ntypes;
    TORCH_CHECK_VALUE(words.size() >= 3 && words[0] == "*" && words[1] == "*",
                      "pair_coeff is wrong; expected `pair_coeff * * FILE` and an element for each atom type");
    TORCH_CHECK_VALUE(static_cast<int>(words.size()) == 3 + types,
                      "the number of elements in pair_coeff is wrong; expected ", types, ", one an atom type; found ",
                      words.size() - 3, "; name them after the file, as in `pair_coeff * * model.pt Si O`");
    coefficients_ = words;
    const std::string &file = words[2];
    model_ = read_model(file, trust_, world, /*verify=*/check_);
    const Metadata &metadata = model_->metadata();
    TORCH_CHECK_VALUE(metadata.is_potential(), file, " is a ", metadata.kind,
                      "; expected a potential; run a propagator with fix equistride/propagate");
    const at::ScalarType dtype = precision_of(precision_, *model_);
    model_->to(choose_device(device_, world), dtype);
    TORCH_CHECK_VALUE(!threshold_ || model_->metadata().contract.uncertainty, file,
                      " cannot say how sure it is; expected an ensemble (`",
                      "equistride ensemble`) for uncertainty_threshold");
    TORCH_CHECK_VALUE(!distance_ || *distance_ < metadata.cutoff, "min_distance is as far as the model sees; expected ",
                      "less than its cutoff, ", metadata.cutoff, " A; found ", *distance_, " A");
    if (charge_ || spin_)
        model_->set_system(charge_.value_or(metadata.charge), spin_.value_or(metadata.spin));
    at::set_num_threads(std::max(1, comm->nthreads));

    if (!allocated) {
        allocated = 1;
        memory->create(setflag, types + 1, types + 1, "pair:setflag");
        memory->create(cutsq, types + 1, types + 1, "pair:cutsq");
    }
    const bool hybrid = std::string(force->pair_style ? force->pair_style : "").rfind("hybrid", 0) == 0;
    species_.assign(static_cast<std::size_t>(types + 1), -1);
    std::string map, system;
    if (metadata.charge_spin != Metadata::ChargeSpin::none)
        system = c10::str(", total charge ", metadata.charge, " e, spin multiplicity ", metadata.spin);
    for (int type = 1; type <= types; type++) {
        const std::string &element = words[static_cast<std::size_t>(2 + type)];
        TORCH_CHECK_VALUE(element != "NULL" || hybrid, "atom type ", type, " has no element (NULL); expected one of ",
                          c10::Join(", ", metadata.species), "; NULL is for pair_style hybrid");
        species_[static_cast<std::size_t>(type)] = element == "NULL" ? -1 : metadata.species_index(element);
        map += "  atom type " + std::to_string(type) + ": " + (element == "NULL" ? "not seen" : element) + "\n";
    }
    for (int i = 1; i <= types; i++)
        for (int j = 1; j <= types; j++)
            setflag[i][j] =
                species_[static_cast<std::size_t>(i)] >= 0 && species_[static_cast<std::size_t>(j)] >= 0 && i <= j;
    if (comm->me == 0)
        LAMMPS_NS::utils::logmesg(lmp, "pair equistride: {} ({}, cutoff {} A, {}, {}{})\n{}", file,
                                  metadata.architecture, metadata.cutoff, dtype == at::kDouble ? "float64" : "float32",
                                  model_->device().str(), system, map);
}

void PairEquistride::init_style() {
    guarded_together(error, world, PAIR, [&] {
        TORCH_CHECK_VALUE(model_, "there is no model; give `pair_coeff * * FILE` and an element for each atom type");
        energy_unit_ = units_of(*update).energy;
        TORCH_CHECK_VALUE(!model_->metadata().requires_box ||
                              (domain->periodicity[0] && domain->periodicity[1] && domain->periodicity[2]),
                          "the model was trained on periodic systems alone; expected `boundary p p p`");
        // These move ghost atoms and not the box.
        const bool strains =
            !modify->get_fix_by_style("numdiff/virial").empty() || !modify->get_compute_by_style("born/matrix").empty();
        TORCH_CHECK_VALUE(!strains || ghost_choice_ != "local",
                          "fix numdiff/virial and compute born/matrix move ghost ",
                          "atoms, of which `ghost local` has none; use `ghost exchange`");
        ghosts_ = GhostPolicy::of(ghost_choice_, *model_, strains ? std::max(2, comm->nprocs) : comm->nprocs);
        TORCH_CHECK_VALUE(!threshold_ || ghosts_.kind == Ghosts::local, "uncertainty_threshold is for one process, ",
                          "which has all atoms; found ", comm->nprocs, " and `ghost ", ghosts_.name(), "`");
        TORCH_CHECK_VALUE(ghosts_.kind == Ghosts::local || force->newton_pair,
                          "forces on ghost atoms must be sent home; expected `newton on`; found `newton off`");
    });
    asked_.clear();
    warn_of_masses();
    if (comm->me == 0)
        LAMMPS_NS::utils::logmesg(lmp, "pair equistride: ghost {}, {} A of ghost atoms needed\n", ghosts_.name(),
                                  ghosts_.kind == Ghosts::local ? 0.0 : ghosts_.reach);
}

void PairEquistride::warn_of_masses() const {
    if (atom->rmass)
        return;
    for (int type = 1; type <= atom->ntypes; type++) {
        const std::int64_t index = species_[static_cast<std::size_t>(type)];
        if (index < 0)
            continue;
        const std::vector<std::string> &known = model_->metadata().species;
        const std::string &element = known[static_cast<std::size_t>(index)];
        const auto apart = [&](const std::string &symbol) {
            return std::abs(atom->mass[type] / standard_mass(symbol) - 1);
        };
        const auto nearest = std::min_element(known.begin(), known.end(),
                                              [&](const auto &a, const auto &b) { return apart(a) < apart(b); });
        if (apart(element) > OTHER_MASS)
            warn(c10::str("atom type ", type, " is ", element, " to the model, but its mass, ", atom->mass[type],
                          " amu, is ", *nearest != element ? "that of " + *nearest : "another",
                          "; check the order of the elements in pair_coeff and the masses"));
    }
}

void PairEquistride::warn(const std::string &sentence) const {
    if (comm->me == 0)
        error->warning(PAIR, 0, sentence);
}

double PairEquistride::init_one(int first, int second) {
    asked_.emplace(first, second);
    return ghosts_.reach;
}

// After all fixes are set up, which may have changed lists.
void PairEquistride::setup() {
    Notes notes;
    guarded_together(error, world, PAIR, [&] {
        for (int i = 1; i <= atom->ntypes; i++)
            for (int j = i; j <= atom->ntypes; j++)
                TORCH_CHECK_VALUE(!setflag[i][j] || asked_.count({i, j}), "pair_coeff gives the pair of atom types ", i,
                                  " and ", j,
                                  " to another style, and a model of all atoms cannot leave out pairs; use ",
                                  "pair_style hybrid/overlay, or NULL for types that the model is not to see");
        notes = check_settings(*lmp, species_);
    });
    if (notes.outside)
        warn("the model does not see the atoms that `neigh_modify exclude` keeps from all others: they have no energy");
    else if (outside_of(*lmp))
        warn("fixes that add or remove atoms compare energies of different compositions: right for a model that was "
             "trained on such");
    if (notes.charged)
        warn("the model does not see the charges of atoms (`q`)");
    if (notes.bonded)
        warn("the model sees all pairs, whatever special_bonds says of bonded ones");
    if (!modify->get_compute_by_style("heat/flux").empty() &&
        modify->get_compute_by_style("centroid/stress/atom").empty())
        warn("a heat flux from `compute stress/atom` is wrong for a many-body model; use `compute "
             "centroid/stress/atom`");
}

void PairEquistride::compute(int eflag, int vflag) {
    ev_init(eflag, vflag);
    local_.take(*atom, species_, ghosts_.kind, LocalAtoms::Order::as_they_are, outside_of(*lmp));
    if (model_->metadata().composition) // fixes may have added and removed atoms, or changed their types
        guarded_together(error, world, PAIR, [&] { check_composition(*model_, local_, MpiCommunicator(world)); });
    guarded(error, PAIR, [&] { evaluate(); });
}

void PairEquistride::evaluate() {
    if (model_->metadata().contract.decomposable)
        evaluate_part();
    else
        evaluate_whole();
    if (threshold_)
        check_uncertainty();
}

void PairEquistride::evaluate_part() {
    local_.connect(*domain, cell_of(*domain), model_->metadata(), ghosts_);
    check_distances(local_.frame);
    exchange_.begin(local_, atom->nlocal + atom->nghost);
    const MpiCommunicator all(world);
    const bool sums = model_->metadata().contract.global_sums > 0;
    const PartOutputs out = model_->compute_part(local_.frame, local_.owned, ghosts_.sends ? &exchange_ : nullptr,
                                                 /*gradient=*/true, sums ? all : Communicator::self());
    const Frame &frame = local_.frame;
    tally(out.atomic_energies, forces_from_edges(out.gradient, frame.edge_index, frame.shifts, local_.rows()),
          virial_from_edges(out.vectors, out.gradient));
    if (!vflag_atom && !cvflag_atom)
        return;
    const at::Tensor senders = frame.edge_index[1].contiguous(), gradient = out.gradient.contiguous();
    const at::Tensor vectors = out.vectors.contiguous();
    const auto *sender = senders.const_data_ptr<std::int64_t>();
    const double *g = gradient.const_data_ptr<double>(), *r = vectors.const_data_ptr<double>();
    for (std::int64_t e = 0; e < senders.size(0); e++)
        tally_atom(local_.atom[static_cast<std::size_t>(sender[e])], r + 3 * e, g + 3 * e);
}

// Energies of own atoms, forces on all that the model was given, and the virial.
void PairEquistride::tally(const at::Tensor &energies, const at::Tensor &forces, const at::Tensor &w) {
    const auto home = [](const at::Tensor &tensor) { return tensor.to(at::kCPU, at::kDouble).contiguous(); };
    const at::Tensor e_home = home(energies), f_home = home(forces), w_home = home(w);
    const double *energy = e_home.const_data_ptr<double>(), *f = f_home.const_data_ptr<double>();
    for (std::int64_t row = 0; row < f_home.size(0); row++)
        for (int k = 0; k < 3; k++)
            atom->f[local_.atom[static_cast<std::size_t>(row)]][k] += energy_unit_ * f[3 * row + k];
    for (std::int64_t row = 0; row < local_.owned; row++) {
        if (eflag_global)
            eng_vdwl += energy_unit_ * energy[row];
        if (eflag_atom)
            eatom[local_.atom[static_cast<std::size_t>(row)]] += energy_unit_ * energy[row];
    }
    const double *v = w_home.const_data_ptr<double>();
    const double six[6] = {v[0], v[4], v[8], 0.5 * (v[1] + v[3]), 0.5 * (v[2] + v[6]), 0.5 * (v[5] + v[7])};
    if (vflag_global)
        for (int k = 0; k < 6; k++)
            virial[k] += energy_unit_ * six[k];
}

// An edge belongs to its sender j: -r_ij (x) dE/dr_ij, times the velocity of j, is what the motion of j carries of the
// energy from j to i.
void PairEquistride::tally_atom(int j, const double *r, const double *g) {
    const double w[9] = {r[0] * g[0], r[1] * g[1], r[2] * g[2], r[0] * g[1], r[0] * g[2],
                         r[1] * g[2], r[1] * g[0], r[2] * g[0], r[2] * g[1]};
    if (vflag_atom)
        for (int k = 0; k < 6; k++)
            vatom[j][k] -= energy_unit_ * (k < 3 ? w[k] : 0.5 * (w[k] + w[k + 3]));
    if (cvflag_atom)
        for (int k = 0; k < 9; k++)
            cvatom[j][k] -= energy_unit_ * w[k];
}

// All atoms, on one process, as the model takes them.
Frame PairEquistride::whole() const {
    const at::Tensor periodicity = periodicity_of(*domain);
    const Coordinates now{local_.frame.positions, {}, cell_of(*domain), &local_.labels};
    Frame frame = Placement(*model_, periodicity).place(now, local_.frame.species.to(model_->device()));
    find_edges(frame, periodicity.to(model_->device()), model_->metadata().cutoff);
    return frame;
}

void PairEquistride::evaluate_whole() {
    TORCH_CHECK_VALUE(!vflag_atom && !cvflag_atom,
                      "the model gives no stress of single atoms, because it does not give ",
                      "energies from edge vectors; leave out computes of the stress of atoms");
    const Frame frame = whole();
    check_distances(frame);
    const Outputs out = model_->compute(frame);
    tally(out.atomic_energies, out.forces, out.virial);
}

// End the run, or tell the user, once on each process that sees it.
void PairEquistride::broken(const char *bound, const std::string &sentence) {
    if (stops_)
        C10_THROW_ERROR(ValueError, sentence);
    if (told_.insert(bound).second)
        error->warning(PAIR, 0, sentence + "; told once");
}

void PairEquistride::check_distances(const Frame &frame) {
    const auto pair = distance_ ? closer_than(frame, *distance_) : std::nullopt;
    if (pair)
        broken("distance", c10::str("atoms ", pair->first, " and ", pair->second, " are ", pair->distance,
                                    " A apart; expected min_distance, ", *distance_,
                                    " A, or more; the run has blown up, or the bound is too high"));
}

void PairEquistride::check_uncertainty() {
    const at::Tensor spread = model_->uncertainty(whole());
    const auto [largest, place] = spread.max(0);
    const double found = largest.item<double>();
    if (!(found <= *threshold_))
        broken("uncertainty",
               c10::str("the members of the ensemble disagree about the force on atom ",
                        local_.labels[static_cast<std::size_t>(place.item<std::int64_t>())], "; expected at most ",
                        *threshold_, " eV/A; found ", found, " eV/A; the run has left the training data"));
}

void PairEquistride::write_restart(FILE *file) {
    write_restart_settings(file);
    write_words(file, coefficients_);
}

void PairEquistride::read_restart(FILE *file) {
    read_restart_settings(file);
    const std::vector<std::string> words = read_words(file, world);
    const std::string sentence = shared_sentence(failure_of([&] { read_coefficients(words); }), world);
    if (sentence.empty())
        return;
    model_.reset(); // an input that is run elsewhere names the file again
    coefficients_.clear();
    if (comm->me == 0)
        error->warning(PAIR, 0, "the restart file's model was not read; give pair_coeff again: " + sentence);
}

void PairEquistride::write_restart_settings(FILE *file) { write_words(file, settings_); }

void PairEquistride::read_restart_settings(FILE *file) {
    const std::vector<std::string> words = read_words(file, world);
    guarded_together(error, world, PAIR, [&] { read_settings(words); });
}

} // namespace equistride::lammps
