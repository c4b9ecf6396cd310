#include "fix_propagate.h"

#include "equistride/units.h"
#include "host.h"
#include "words.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "force.h"
#include "modify.h"
#include "utils.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <random>

namespace equistride::lammps {
namespace {

constexpr char FIX[] = "fix equistride/propagate";
// Tables of atomic masses differ in the fifth digit, isotopes by a per cent or more.
constexpr double SAME_MASS = 1e-3;
// How far an atom may go in a stride that a guard looks at [A]: its neighbours before and after are among the ghosts.
constexpr double MARGIN = 1.0;
// Whole numbers up to here are exact in double precision.
constexpr double EXACT = 9007199254740992.0;

double whole(const std::string &keyword, const std::string &word, double least) {
    const double value = number(keyword, word, least);
    TORCH_CHECK_VALUE(value == std::floor(value) && value <= EXACT, "a value of ", keyword,
                      " is wrong; expected a whole number up to ", EXACT, "; found ", word);
    return value;
}

} // namespace

FixPropagate::FixPropagate(LAMMPS_NS::LAMMPS *lmp, int count, char **words)
    : Fix(lmp, count, words), exchange_([this](int columns) { comm->forward_comm(this, columns); },
                                        [this](int columns) { comm->reverse_comm(this, columns); }),
      collective_(world) {
    time_integrate = 1;
    restart_global = 1;
    force_reneighbor = 1;
    next_reneighbor = -1;
    vector_flag = 1;
    size_vector = 3;
    global_freq = 1;
    extvector = 0;
    comm_forward = comm_reverse = GhostExchange::SLOTS;
    guarded_together(error, world, FIX, [&] {
        const std::vector<std::string> all = words_of(count, words);
        TORCH_CHECK_VALUE(igroup == 0, "a stride moves all atoms; expected the group all; found another");
        read_options(all, read_model(all));
    });
}

std::size_t FixPropagate::read_model(const std::vector<std::string> &words) {
    const std::size_t types = static_cast<std::size_t>(atom->ntypes), first = 4;
    TORCH_CHECK_VALUE(words.size() >= first + types,
                      "the fix is wrong; expected `fix ID all equistride/propagate FILE` ",
                      "and an element for each of ", types, " atom types; found ", words.size() - 3, " words");
    model_ = Model::from_bytes(read_once(words[3], world), words[3]);
    const Metadata &metadata = model_->metadata();
    TORCH_CHECK_VALUE(metadata.kind == "propagator", words[3], " is a ", metadata.kind,
                      "; expected a propagator; run a potential with pair_style equistride");
    species_.assign(types + 1, -1);
    std::string map;
    for (std::size_t type = 1; type <= types; type++) {
        elements_.push_back(words[first + type - 1]);
        species_[type] = metadata.species_index(elements_.back());
        map += "  atom type " + std::to_string(type) + ": " + elements_.back() + "\n";
    }
    if (comm->me == 0)
        LAMMPS_NS::utils::logmesg(lmp, "{}: {} ({}, stride {} fs, cutoff {} A)\n{}", FIX, words[3],
                                  metadata.architecture, metadata.stride_fs, metadata.cutoff, map);
    return first + types;
}

void FixPropagate::read_options(const std::vector<std::string> &words, std::size_t first) {
    std::string guard_file;
    double every = 1, bound = 0;
    std::uint64_t seed = 0;
    const auto need = [&](std::size_t k, std::size_t values) {
        TORCH_CHECK_VALUE(k + values < words.size(), "the keyword ", words[k], " has too few values; expected ",
                          values);
    };
    for (std::size_t k = first; k < words.size();) {
        const std::string &keyword = words[k];
        if (keyword == "temp") {
            need(k, 3);
            start_ = number(keyword, words[k + 1], 0);
            stop_ = number(keyword, words[k + 2], 0);
            relaxation_ = number(keyword, words[k + 3], 0);
            TORCH_CHECK_VALUE(start_ > 0 && stop_ > 0 && relaxation_ > 0,
                              "the thermostat needs temperatures and a time above 0, as in `temp 300 300 0.075`");
            k += 4;
        } else if (keyword == "friction") {
            need(k, 1);
            friction_ = number(keyword, words[k + 1], 0);
            k += 2;
        } else if (keyword == "guard") {
            need(k, 2);
            guard_file = words[k + 1];
            every = whole(keyword, words[k + 2], 1);
            k += 3;
        } else if (keyword == "bound" || keyword == "seed") {
            need(k, 1);
            if (keyword == "bound")
                bound = number(keyword, words[k + 1], 0);
            else
                seed = static_cast<std::uint64_t>(whole(keyword, words[k + 1], 0));
            k += 2;
        } else if (keyword == "ghost" || keyword == "device" || keyword == "precision") {
            need(k, 1);
            (keyword == "ghost" ? ghost_choice_ : keyword == "device" ? device_ : precision_) = words[k + 1];
            k += 2;
        } else
            TORCH_CHECK_VALUE(false, "the keyword ", keyword,
                              " is not known; expected temp, friction, seed, guard, bound, ghost, device or precision");
    }
    TORCH_CHECK_VALUE(precision_ == "auto" || precision_ == "float32" || precision_ == "float64",
                      "the value of precision is not known; expected auto, float32 or float64; found ", precision_);
    TORCH_CHECK_VALUE(friction_ < 0 || start_ > 0, "`friction` is the thermostat's, and there is none; add `temp`");
    TORCH_CHECK_VALUE(bound == 0 || !guard_file.empty(), "`bound` is the guard's, and there is none; add `guard`");
    random_ = SplitMix64(seed);
    const auto place = [&](Model &model) {
        model.to(choose_device(device_, world), precision_ == "auto"      ? model.dtype()
                                                : precision_ == "float64" ? at::kDouble
                                                                          : at::kFloat);
    };
    place(*model_);
    if (!guard_file.empty()) {
        auto potential = Model::from_bytes(read_once(guard_file, world), guard_file);
        std::vector<std::int64_t> species = {-1};
        for (const std::string &element : elements_)
            species.push_back(potential->metadata().species_index(element));
        place(*potential);
        guard_ = std::make_unique<DividedGuard>(std::move(potential), species, static_cast<int>(every), bound);
    }
    at::set_num_threads(std::max(1, comm->nthreads));
}

int FixPropagate::setmask() { return LAMMPS_NS::FixConst::INITIAL_INTEGRATE; }

void FixPropagate::init() {
    guarded_together(error, world, FIX, [&] {
        check_run();
        check_masses();
        choose_ghosts();
    });
    const int far = ghosts_ == Ghosts::wide ? message_passing_steps_ : 1;
    double reach = model_->metadata().cutoff * far;
    if (guard_) {
        guard_->choose_ghosts(ghosts_ == Ghosts::local);
        reach = std::max(reach, guard_->reach() + 2 * MARGIN);
    }
    // Without a pair style nobody else asks for ghosts.
    comm->cutghostuser = std::max(comm->cutghostuser, reach);
    if (comm->me == 0 && force->pair)
        error->warning(FIX, 0, std::string("a stride knows no forces: those of the pair style move no atom"));
}

void FixPropagate::check_step() const {
    const double stride = model_->metadata().stride_fs, step = update->dt * units_of(*update).femtoseconds;
    TORCH_CHECK_VALUE(std::abs(step - stride) <= 1e-6 * stride, "the time step is not the model's stride; expected ",
                      stride, " fs; found ", step, " fs; set `timestep ", stride / units_of(*update).femtoseconds, "`");
}

void FixPropagate::check_run() {
    const Metadata &metadata = model_->metadata();
    check_step();
    TORCH_CHECK_VALUE(atom->tag_enable,
                      "atoms without IDs would all meet the same noise; expected `atom_modify id yes`");
    TORCH_CHECK_VALUE(std::string(update->integrate_style).rfind("verlet", 0) == 0,
                      "a stride needs `run_style verlet`; found ", update->integrate_style);
    int periodic = 0;
    for (int k = 0; k < 3; k++)
        periodic += domain->periodicity[k] != 0;
    TORCH_CHECK_VALUE(!metadata.requires_box || periodic == 3,
                      "the model was trained on periodic systems alone; expected `boundary p p p`");
    conserves_angular_momentum_ = periodic == 0;
    for (int k = 0; k < modify->nfix; k++) {
        const Fix *const other = modify->fix[k];
        if (other == this)
            continue;
        const std::string name = std::string("fix ") + other->id + " (" + other->style + ")";
        TORCH_CHECK_VALUE(!other->time_integrate, name, " moves the atoms too, and only one can; take it out");
        TORCH_CHECK_VALUE(!(other->box_change & ~BOX_CHANGE_DOMAIN), name,
                          " changes the box, and a propagator knows no pressure; take it out");
        TORCH_CHECK_VALUE(!(modify->fmask[k] & LAMMPS_NS::FixConst::POST_FORCE), name,
                          " acts on forces, and a stride knows none: it would do nothing; take it out (`temp` is the "
                          "thermostat of a stride)");
        TORCH_CHECK_VALUE(std::strstr(other->style, "shake") == nullptr &&
                              std::strstr(other->style, "rattle") == nullptr,
                          name, " constrains the atoms, which a stride does not; take it out");
    }
}

void FixPropagate::check_masses() const {
    const Metadata &metadata = model_->metadata();
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

void FixPropagate::choose_ghosts() {
    const bool one = comm->nprocs == 1, exchanges = model_->exchanges() > 0;
    message_passing_steps_ = message_passing_steps_of(*model_);
    if (ghost_choice_ == "auto")
        ghosts_ = one ? Ghosts::local : exchanges || message_passing_steps_ == 1 ? Ghosts::exchange : Ghosts::wide;
    else if (ghost_choice_ == "local")
        ghosts_ = Ghosts::local;
    else if (ghost_choice_ == "wide")
        ghosts_ = Ghosts::wide;
    else {
        TORCH_CHECK_VALUE(ghost_choice_ == "exchange",
                          "the value of ghost is not known; expected auto, local, wide or ", "exchange; found ",
                          ghost_choice_);
        ghosts_ = Ghosts::exchange;
    }
    TORCH_CHECK_VALUE(one || ghosts_ != Ghosts::local, "`ghost local` is for one process; found ", comm->nprocs);
    TORCH_CHECK_VALUE(ghosts_ == Ghosts::local || model_->supports_domain_decomposition(),
                      "the model was exported before it could be divided among processes; export it again");
    TORCH_CHECK_VALUE(ghosts_ == Ghosts::local || !conserves_angular_momentum_,
                      "an open system keeps its angular momentum, which one process ",
                      "alone can see to; run it on one process");
}

void FixPropagate::setup(int) {
    double slowest = 0;
    guarded_together(error, world, FIX, [&] {
        for (int i = 0; i < atom->nlocal; i++)
            for (int k = 0; k < 3; k++) {
                TORCH_CHECK_VALUE(std::isfinite(atom->v[i][k]), "the velocity of atom ", atom->tag ? atom->tag[i] : i,
                                  " is not finite; set the velocities anew");
                slowest = std::max(slowest, std::abs(atom->v[i][k]));
            }
    });
    guarded_together(error, world, FIX, [&] {
        TORCH_CHECK_VALUE(collective_.largest(slowest) > 0,
                          "the atoms are at rest, and a propagator moves them by their ",
                          "velocities; set them, as in `velocity all create 300 1 mom yes rot yes dist gaussian`");
    });
}

void FixPropagate::initial_integrate(int) {
    guarded(error, FIX, [&] {
        check_step(); // a fix may have changed it
        stride();
    });
    // The ghosts of the next stride must be those of the new positions.
    next_reneighbor = update->ntimestep;
}

double FixPropagate::target() const {
    double done = static_cast<double>(update->ntimestep - update->beginstep);
    if (update->endstep > update->beginstep)
        done /= static_cast<double>(update->endstep - update->beginstep);
    return start_ + done * (stop_ - start_);
}

// Normal deviates of variance kT / m: of an atom's number and the draw alone, so that they do not depend on the
// processes.
at::Tensor FixPropagate::noise() {
    const std::uint64_t draw = random_();
    at::Tensor made = at::empty({local_.owned, 3}, at::kDouble);
    double *x = made.mutable_data_ptr<double>();
    for (std::int64_t row = 0; row < local_.owned; row++) {
        const auto number = atom->tag[local_.atom[static_cast<std::size_t>(row)]];
        SplitMix64 own(draw ^ (static_cast<std::uint64_t>(number) * 0xd1342543de82ef95));
        std::normal_distribution<double> normal;
        for (int k = 0; k < 3; k++)
            *x++ = normal(own);
    }
    return made * (units::BOLTZMANN * target() / units::EV_PER_KINETIC / masses_).sqrt();
}

// Half a stride of friction and velocity rescaling (langevin+csvr).
void FixPropagate::heat(at::Tensor &velocities, const at::Tensor &positions) {
    if (start_ == 0)
        return;
    const double stride = model_->metadata().stride_fs, unit = units_of(*update).femtoseconds;
    const double tau = relaxation_ * unit;
    const double friction = friction_ < 0 ? 1.0 / (FRICTION_STRIDES * stride) : friction_ / unit;
    std::optional<RigidMotion> rigid;
    double degrees = 3.0 * static_cast<double>(atom->natoms) - 3.0;
    if (conserves_angular_momentum_) {
        rigid.emplace(positions, masses_, true);
        degrees = 3.0 * static_cast<double>(atom->natoms) - static_cast<double>(rigid->degrees());
    }
    if (degrees <= 0)
        return;
    const auto common = [&](const at::Tensor &v) {
        return rigid ? rigid->part(v) : collective_.drift(v, masses_).expand_as(v);
    };
    const at::Tensor whole = common(velocities);
    at::Tensor internal = velocities - whole;
    if (friction > 0) {
        const double c1 = std::exp(-0.5 * stride * friction);
        const at::Tensor kicks = noise();
        internal = c1 * internal + std::sqrt(1.0 - c1 * c1) * (kicks - common(kicks));
    }
    const double kinetic = collective_.kinetic(internal, masses_);
    const double factor =
        collective_.same(csvr_factor(kinetic, degrees, target(), std::exp(-0.5 * stride / tau), random_));
    velocities = whole + factor * internal;
}

void FixPropagate::read_atoms() {
    local_.find(*atom, *domain, species_, model_->metadata().cutoff, ghosts_, message_passing_steps_);
    exchange_.begin(local_, atom->nlocal + atom->nghost);
    const at::Tensor table = at::tensor(model_->metadata().masses, at::kDouble);
    masses_ = table.index_select(0, local_.frame.species.narrow(0, 0, local_.owned)).unsqueeze(1);
}

// Displacements and velocities of the own atoms.
State FixPropagate::network(const at::Tensor &velocities) {
    Frame frame = local_.frame;
    if (ghosts_ == Ghosts::local) {
        frame.velocities = velocities;
        for (at::Tensor *tensor :
             {&frame.positions, &frame.velocities, &frame.cell, &frame.species, &frame.edge_index, &frame.shifts})
            *tensor = tensor->to(model_->device());
        const Outputs out = model_->compute(frame);
        return {out.displacements.to(at::kCPU, at::kDouble), out.velocities.to(at::kCPU, at::kDouble)};
    }
    at::Tensor all = at::zeros_like(frame.positions);
    all.narrow(0, 0, local_.owned).copy_(velocities);
    frame.velocities = exchange_.forward(all);
    const bool sends = ghosts_ == Ghosts::exchange && model_->exchanges() > 0;
    const PartOutputs out = model_->compute_part(frame, local_.owned, sends ? &exchange_ : nullptr);
    State step{out.displacements, out.velocities};
    collective_.keep_momentum(step, velocities, masses_, model_->metadata().stride_fs);
    return step;
}

void FixPropagate::stride() {
    const double femtoseconds = units_of(*update).femtoseconds;
    read_atoms();
    const std::int64_t n = local_.owned;
    const at::Tensor before = local_.frame.positions.narrow(0, 0, n).clone();
    at::Tensor velocities = at::empty({n, 3}, at::kDouble);
    double *v = velocities.mutable_data_ptr<double>();
    for (std::int64_t row = 0; row < n; row++)
        for (int k = 0; k < 3; k++)
            v[3 * row + k] = atom->v[local_.atom[static_cast<std::size_t>(row)]][k] / femtoseconds;
    heat(velocities, before);
    const bool guarded = guard_ && guard_->due(update->ntimestep);
    double energy = 0;
    if (guarded) {
        energy = guard_->energy(*atom, *domain, exchange_, collective_) + collective_.kinetic(velocities, masses_);
        exchange_.begin(local_, atom->nlocal + atom->nghost);
    }
    State step = network(velocities);
    if (guarded && ghosts_ != Ghosts::local) {
        const double farthest = collective_.largest(n ? step.positions.abs().max().item<double>() : 0.0);
        TORCH_CHECK_VALUE(farthest <= MARGIN, "an atom moved too far in a stride for the guard; expected at most ",
                          MARGIN, " A; found ", farthest, " A; the run has left the training data");
    }
    // The guard needs the ghosts where they are now; else LAMMPS moves them before anyone looks.
    at::Tensor moved = step.positions;
    if (guarded && ghosts_ != Ghosts::local) {
        LocalAtoms everyone;
        everyone.take(*atom, species_);
        exchange_.begin(everyone, atom->nlocal + atom->nghost);
        at::Tensor all = at::zeros_like(everyone.frame.positions);
        all.narrow(0, 0, n).copy_(step.positions);
        moved = exchange_.forward(all);
    }
    const at::Tensor shift = moved.contiguous();
    const double *d = shift.const_data_ptr<double>();
    for (std::int64_t row = 0; row < shift.size(0); row++)
        for (int k = 0; k < 3; k++)
            atom->x[row][k] += d[3 * row + k];
    if (guarded) {
        const double after =
            guard_->energy(*atom, *domain, exchange_, collective_) + collective_.kinetic(step.velocities, masses_);
        step.velocities = guard_->mend(step.velocities, masses_, energy, after, atom->natoms, collective_);
    }
    velocities = step.velocities;
    heat(velocities, before + step.positions);
    const at::Tensor last = velocities.contiguous();
    v = last.mutable_data_ptr<double>();
    for (std::int64_t row = 0; row < n; row++)
        for (int k = 0; k < 3; k++)
            atom->v[row][k] = v[3 * row + k] * femtoseconds;
}

double FixPropagate::compute_vector(int place) {
    if (!guard_)
        return 0;
    const DividedGuard::Counts &counts = guard_->counts();
    const double values[] = {counts.checks, counts.violations, counts.largest};
    return values[place];
}

void FixPropagate::write_restart(FILE *file) {
    if (comm->me != 0)
        return;
    const std::uint64_t state = random_.state();
    const int size = sizeof state;
    std::fwrite(&size, sizeof size, 1, file);
    std::fwrite(&state, sizeof state, 1, file);
}

void FixPropagate::restart(char *bytes) {
    std::uint64_t state = 0;
    std::memcpy(&state, bytes, sizeof state);
    random_ = SplitMix64::from_state(state);
}

} // namespace equistride::lammps
