#include "fix_propagate.h"

#include "host.h"
#include "propagation/system_propagation.h"
#include "settings.h"
#include "words.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "force.h"
#include "modify.h"
#include "utils.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

namespace equistride::lammps {
namespace {

constexpr char FIX[] = "fix equistride/propagate";
// The fix's vector f_ID: names of Guard::statistics(), then of Barostat::statistics().
constexpr const char *STATISTICS[] = {"checks",      "violations", "largest_change", "strides",
                                      "corrected",   "rejected",   "refused",        "evaluations",
                                      "mean_change", "rms_change", "guard_seconds",  "network_seconds"};
constexpr const char *MOVES[] = {"moves", "taken"};
// Fixes that take or refuse what they try by its energy, and do not ask for a pair style themselves.
constexpr std::string_view BY_ENERGY[] = {"gcmc", "widom", "mol/swap", "charge/regulation", "hmc"};
constexpr const char *TRACE[] = {"trace.positions", "trace.velocities", "trace.cell", "trace.size"};

} // namespace

FixPropagate::FixPropagate(LAMMPS_NS::LAMMPS *lmp, int count, char **words)
    : Fix(lmp, count, words), exchange_([this](int columns) { comm->forward_comm(this, columns); },
                                        [this](int columns) { comm->reverse_comm(this, columns); }),
      communicator_(world) {
    time_integrate = 1;
    restart_global = 1;
    force_reneighbor = 1;
    next_reneighbor = -1;
    vector_flag = 1;
    size_vector = std::size(STATISTICS) + std::size(MOVES);
    global_freq = 1;
    extvector = 0;
    comm_forward = comm_reverse = GhostExchange::SLOTS;
    guarded_together(error, world, FIX, [&] {
        TORCH_CHECK_VALUE(igroup == 0, "a stride moves all atoms; expected the group all; found another");
        read_words(words_of(count, words));
    });
}

void FixPropagate::read_words(const std::vector<std::string> &words) {
    const std::size_t types = static_cast<std::size_t>(atom->ntypes), first = 4;
    TORCH_CHECK_VALUE(words.size() >= first + types,
                      "the fix is wrong; expected `fix ID all equistride/propagate FILE` ",
                      "and an element for each of ", types, " atom types; found ", words.size() - 3, " words");
    const Keywords options =
        propagate_keywords({words.begin() + static_cast<std::ptrdiff_t>(first + types), words.end()});
    const bool trust = trusted(options);
    auto model = read_model(words[3], trust, world);
    const Metadata metadata = model->metadata();
    TORCH_CHECK_VALUE(!metadata.is_potential(), words[3], " is a ", metadata.kind,
                      "; expected a propagator; run a potential with pair_style equistride");
    species_ = {-1};
    std::string map;
    for (std::size_t type = 1; type <= types; type++) {
        elements_.push_back(words[first + type - 1]);
        species_.push_back(metadata.species_index(elements_.back()));
        map += "  atom type " + std::to_string(type) + ": " + elements_.back() + "\n";
    }
    if (comm->me == 0)
        LAMMPS_NS::utils::logmesg(lmp, "{}: {} ({}, stride {} fs, cutoff {} A)\n{}", FIX, words[3],
                                  metadata.architecture, metadata.strides_in_words(), metadata.cutoff, map);
    options_ = read_options(options, units_of(*update), metadata.stride_fs);
    const GhostPolicy ghosts = GhostPolicy::of(options_.ghost, *model, comm->nprocs);
    network_ = serve(std::move(model), ghosts);
    run_.emplace(*network_.evaluation, options_.thermostat, options_.seed, communicator_);
    if (!options_.guard_file.empty()) {
        auto potential = read_model(options_.guard_file, trust, world);
        const bool local = ghosts.kind == Ghosts::local;
        const GhostPolicy theirs = local ? GhostPolicy::local(*potential) : GhostPolicy::divided(*potential);
        potential_ = serve(std::move(potential), theirs);
        run_->set_guard(options_.guard, *potential_.evaluation);
    }
    if (options_.barostat) {
        TORCH_CHECK_VALUE(periodicity_of(*domain).all().item<bool>(), "`press` needs `boundary p p p`");
        run_->set_barostat(*options_.barostat);
        box_change |= BOX_CHANGE_X | BOX_CHANGE_Y | BOX_CHANGE_Z;
    }
    at::set_num_threads(std::max(1, comm->nthreads));
}

FixPropagate::Served FixPropagate::serve(std::unique_ptr<Model> model, const GhostPolicy &ghosts) {
    AtomTypes types{*atom, *domain, {-1}};
    for (const std::string &element : elements_)
        types.species.push_back(model->metadata().species_index(element));
    model->to(choose_device(options_.device, world), precision_of(options_.precision, *model));
    std::unique_ptr<Evaluation> evaluation;
    if (ghosts.kind == Ghosts::local)
        evaluation = std::make_unique<LocalEvaluation>(*model, std::move(types));
    else
        evaluation = std::make_unique<DividedEvaluation>(*model, std::move(types), ghosts, exchange_, communicator_);
    return {std::move(model), ghosts, std::move(evaluation)};
}

int FixPropagate::setmask() { return LAMMPS_NS::FixConst::INITIAL_INTEGRATE; }

void FixPropagate::init() {
    guarded_together(error, world, FIX, [&] {
        take_step();
        check_run();
        check_masses();
    });
    // Without a pair style nobody else asks for ghosts.
    const double shrunk = options_.barostat ? std::exp(Barostat::MOST) : 1.0;
    const double reach =
        std::max(network_.ghosts.reach, potential_.model ? potential_.ghosts.reach * shrunk + 2 * MARGIN : 0.0);
    comm->cutghostuser = std::max(comm->cutghostuser, reach);
    if (comm->me == 0)
        error->warning(FIX, 0,
                       std::string(force->pair
                                       ? "a stride knows no forces: those of the pair style move no atom"
                                       : "a stride knows no energy: `pe` and `press` in the output are kinetic"));
}

void FixPropagate::take_step() {
    const Metadata &metadata = network_.model->metadata();
    const double femtoseconds = units_of(*update).femtoseconds, step = update->dt * femtoseconds;
    TORCH_CHECK_VALUE(metadata.stride_index(step), "the time step is not the model's stride; expected ",
                      metadata.strides_in_words(), " fs; found ", step, " fs; set `timestep` to ",
                      metadata.strides_in_words(femtoseconds));
    run_->set_stride(step);
    if (options_.by_stride)
        options_.thermostat.time = FRICTION_STRIDES * run_->stride_fs();
}

void FixPropagate::check_run() const {
    TORCH_CHECK_VALUE(atom->tag_enable,
                      "atoms without IDs would all meet the same noise; expected `atom_modify id yes`");
    TORCH_CHECK_VALUE(std::string(update->integrate_style).rfind("verlet", 0) == 0,
                      "a stride needs `run_style verlet`; found ", update->integrate_style);
    int periodic = 0;
    for (int k = 0; k < 3; k++)
        periodic += domain->periodicity[k] != 0;
    for (const Served *served : {&network_, &potential_})
        TORCH_CHECK_VALUE(!served->model || !served->model->metadata().requires_box || periodic == 3, "the ",
                          served == &network_ ? "model" : "guard's potential",
                          " was trained on periodic systems alone; expected `boundary p p p`");
    TORCH_CHECK_VALUE(force->pair || update->whichflag != 2,
                      "a propagator knows no forces, so that `minimize` moves nothing; give a pair style for it, or ",
                      "minimize before the fix");
    for (int k = 0; k < modify->nfix; k++) {
        const Fix *const other = modify->fix[k];
        if (other == this)
            continue;
        const std::string name = std::string("fix ") + other->id + " (" + other->style + ")";
        TORCH_CHECK_VALUE(!other->time_integrate, name, " moves the atoms too, and only one can; take it out");
        TORCH_CHECK_VALUE(!(other->box_change & ~BOX_CHANGE_DOMAIN), name,
                          " changes the box, which `press` alone may do beside strides; take it out");
        TORCH_CHECK_VALUE(!(modify->fmask[k] & LAMMPS_NS::FixConst::POST_FORCE), name,
                          " acts on forces, and a stride knows none: it would do nothing; take it out (`temp` is the "
                          "thermostat of a stride)");
        TORCH_CHECK_VALUE(force->pair || std::find(std::begin(BY_ENERGY), std::end(BY_ENERGY), other->style) ==
                                             std::end(BY_ENERGY),
                          name, " goes by energies, and a stride knows none; give a pair style for them");
        TORCH_CHECK_VALUE(std::strstr(other->style, "shake") == nullptr &&
                              std::strstr(other->style, "rattle") == nullptr,
                          name, " constrains the atoms, which a stride does not; take it out");
    }
}

void FixPropagate::check_masses() const {
    const Metadata &metadata = network_.model->metadata();
    const auto check = [&](double mass, int type) {
        const double trained = metadata.masses[static_cast<std::size_t>(species_[static_cast<std::size_t>(type)])];
        TORCH_CHECK_VALUE(std::abs(mass - trained) <= SAME_MASS * trained, "the mass of atom type ", type, " (",
                          elements_[static_cast<std::size_t>(type - 1)],
                          ") is not the one that the model was trained with; expected ", trained, " amu; found ", mass,
                          " amu; a stride holds for its masses alone, so set `mass ", type, " ", trained, "`");
    };
    if (atom->rmass)
        for (int i = 0; i < atom->nlocal; i++)
            check(atom->rmass[i], atom->type[i]);
    else
        for (int type = 1; type <= atom->ntypes; type++)
            check(atom->mass[type], type);
}

void FixPropagate::setup(int) {
    double slowest = 0;
    guarded_together(error, world, FIX, [&] {
        TORCH_CHECK_VALUE(!check_settings(*lmp, species_).outside,
                          "a stride moves all atoms, also those that `neigh_modify exclude` keeps from all others; ",
                          "take it out");
    });
    guarded_together(error, world, FIX, [&] {
        for (int i = 0; i < atom->nlocal; i++)
            for (int k = 0; k < 3; k++) {
                TORCH_CHECK_VALUE(std::isfinite(atom->v[i][k]), "the velocity of atom ", atom->tag ? atom->tag[i] : i,
                                  " is not finite; set the velocities anew");
                slowest = std::max(slowest, std::abs(atom->v[i][k]));
            }
    });
    guarded_together(error, world, FIX, [&] {
        TORCH_CHECK_VALUE(communicator_.largest(slowest) > 0,
                          "the atoms are at rest, and a propagator moves them by their ",
                          "velocities; set them, as in `velocity all create 300 1 mom yes rot yes dist gaussian`");
    });
}

void FixPropagate::initial_integrate(int) {
    guarded(error, FIX, [&] {
        take_step(); // a fix may have changed it
        stride();
    });
    // The ghosts of the next stride must be those of the new positions.
    next_reneighbor = update->ntimestep;
}

double FixPropagate::target() const {
    double done = static_cast<double>(update->ntimestep - update->beginstep);
    if (update->endstep > update->beginstep)
        done /= static_cast<double>(update->endstep - update->beginstep);
    return options_.start + done * (options_.stop - options_.start);
}

// What tells whether somebody else has moved the atoms, or the box: sums that depend neither on the processes, nor on
// the order of the atoms, nor on the periodic images that LAMMPS takes them to.
std::array<double, 4> FixPropagate::trace_of(const State &state, const Particles &particles) {
    const at::Tensor sums = at::zeros({3}, at::kDouble);
    double *sum = sums.mutable_data_ptr<double>();
    const double *v = state.velocities.const_data_ptr<double>();
    for (std::size_t row = 0; row < particles.ids.size(); row++) {
        const int i = own_.atom[row];
        Noise random(0, 0, static_cast<std::uint64_t>(particles.ids[row]));
        double unwrapped[3];
        domain->unmap(atom->x[i], atom->image[i], unwrapped);
        for (const double x : unwrapped) {
            const double weight = random.uniform() - 0.5;
            sum[0] += weight * x;
            sum[1] += weight * *v++;
            sum[2] += std::abs(x);
        }
    }
    const at::Tensor all = communicator_.sum(sums);
    const double *found = all.const_data_ptr<double>();
    return {found[0], found[1], particles.cell.sum().item<double>(), found[2]};
}

bool FixPropagate::moved_by_others(const std::array<double, 4> &now) const {
    constexpr double ROUNDED = 1e-11;
    const std::array<double, 4> &then = *trace_;
    return std::abs(now[0] - then[0]) > ROUNDED * then[3] || std::abs(now[1] - then[1]) > ROUNDED * std::abs(then[1]) ||
           std::abs(now[2] - then[2]) > ROUNDED * std::abs(then[2]);
}

void FixPropagate::stride() {
    const double femtoseconds = units_of(*update).femtoseconds;
    own_.take(*atom, species_, Ghosts::local, LocalAtoms::Order::by_id);
    const std::int64_t n = own_.owned;
    State state{own_.frame.positions, at::empty({n, 3}, at::kDouble)};
    double *v = state.velocities.mutable_data_ptr<double>();
    for (const int i : own_.atom)
        for (int k = 0; k < 3; k++)
            *v++ = atom->v[i][k] / femtoseconds;
    Particles particles;
    particles.masses =
        at::tensor(network_.model->metadata().masses, at::kDouble).index_select(0, own_.frame.species).unsqueeze(1);
    particles.ids = own_.labels;
    particles.labels = &own_.labels;
    particles.count = static_cast<std::int64_t>(atom->natoms);
    particles.cell = cell_of(*domain);
    particles.conserves_angular_momentum = !periodicity_of(*domain).any().item<bool>();
    if (run_->guard() && trace_ && moved_by_others(trace_of(state, particles)))
        run_->guard()->reset();
    if (options_.thermostat.active()) {
        options_.thermostat.temperature = target();
        run_->set_thermostat(options_.thermostat);
    }
    const at::Tensor cell = particles.cell;
    run_->step(state, particles, update->ntimestep - 1);
    if (!particles.cell.is_same(cell)) // the barostat's
        set_cell(*domain, particles.cell);
    const at::Tensor positions = state.positions.contiguous(), velocities = state.velocities.contiguous();
    const double *x = positions.const_data_ptr<double>(), *u = velocities.const_data_ptr<double>();
    for (const int i : own_.atom)
        for (int k = 0; k < 3; k++) {
            atom->x[i][k] = *x++;
            atom->v[i][k] = *u++ * femtoseconds;
        }
    if (run_->guard())
        trace_ = trace_of({positions, velocities}, particles);
}

double FixPropagate::compute_vector(int place) {
    constexpr int FIRST = std::size(STATISTICS);
    if (place < FIRST)
        return run_->guard() ? run_->guard()->statistics().at(STATISTICS[place]) : 0;
    return run_->barostat() ? run_->barostat()->statistics().at(MOVES[place - FIRST]) : 0;
}

void FixPropagate::write_restart(FILE *file) {
    if (comm->me != 0)
        return;
    Checkpoint checkpoint(run_->state());
    if (trace_)
        for (std::size_t k = 0; k < trace_->size(); k++)
            checkpoint.set(TRACE[k], (*trace_)[k]);
    const std::string text = checkpoint.text();
    const int size = static_cast<int>(text.size()) + 1;
    std::fwrite(&size, sizeof size, 1, file);
    std::fwrite(text.c_str(), 1, static_cast<std::size_t>(size), file);
}

void FixPropagate::restart(char *bytes) {
    guarded_together(error, world, FIX, [&] {
        // The bytes of an older version have another beginning, and no end.
        const std::size_t head = std::strlen(Checkpoint::HEAD);
        const std::string text = std::strncmp(bytes, Checkpoint::HEAD, head) == 0 ? bytes : "none";
        run_->set_state(text);
        const Checkpoint checkpoint(text);
        if (checkpoint.has(TRACE[0]))
            for (std::size_t k = 0; k < std::size(TRACE); k++)
                (trace_ ? *trace_ : trace_.emplace())[k] = checkpoint.number(TRACE[k]);
    });
}

} // namespace equistride::lammps
