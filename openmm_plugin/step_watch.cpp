#include "step_watch.h"

#include "equistride/units.h"
#include "model/frame.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <openmm/System.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iomanip>

using OpenMM::ContextImpl;
using OpenMM::Vec3;

namespace equistride {
namespace {

constexpr double KJ_PER_NM = units::KJ_MOL_PER_EV * units::ANGSTROM_PER_NM; // of 1 eV/A
constexpr double NM_PER_PS = units::FS_PER_PS / units::ANGSTROM_PER_NM;     // of 1 A/fs

bool finite(const Vec3 &v) { return std::isfinite(v[0]) && std::isfinite(v[1]) && std::isfinite(v[2]); }

} // namespace

Bounds::Bounds(const std::map<std::string, std::string> &properties) {
    const auto number = [&](const char *name) {
        const std::string &text = properties.at(name);
        std::size_t used = 0;
        double value = -1;
        try {
            value = std::stod(text, &used);
        } catch (const std::exception &) { // no number at all, or none that fits
        }
        TORCH_CHECK_VALUE(used == text.size() && std::isfinite(value) && value >= 0, "the property '", name,
                          "' of the force is no bound; expected a number, 0 (none) or more; found '", text, "'");
        return value;
    };
    force = number("maxForce");
    temperature = number("maxTemperature");
    distance = number("minDistance");
    stops = properties.at("onBound") == "stop";
    frame = properties.at("brokenFrame");
}

StepWatch::StepWatch(Bounds bounds, std::vector<std::int64_t> particles, std::vector<std::string> elements,
                     bool periodic)
    : bounds_(std::move(bounds)), particles_(std::move(particles)), elements_(std::move(elements)),
      periodic_(periodic) {}

void StepWatch::broken(const char *bound, const std::string &sentence) {
    if (bounds_.stops)
        C10_THROW_ERROR(ValueError, sentence);
    if (told_.insert(bound).second)
        TORCH_WARN(sentence, "; told once");
}

void StepWatch::begin(ContextImpl &context) {
    step_ = -1; // a state that is not finite is none to come back to
    context.getPositions(positions_);
    context.getVelocities(velocities_);
    context.getPeriodicBoxVectors(box_[0], box_[1], box_[2]);
    double twice = 0;
    std::int64_t moving = 0;
    for (const std::int64_t i : particles_) {
        const Vec3 &v = velocities_[static_cast<std::size_t>(i)];
        TORCH_CHECK_VALUE(finite(positions_[static_cast<std::size_t>(i)]), "the position of atom ", i,
                          " is not finite; the simulation has blown up or was set up wrong: "
                          "minimise, or use a shorter time step");
        TORCH_CHECK_VALUE(finite(v), "the velocity of atom ", i,
                          " is not finite; set the velocities anew, or go back to a checkpoint");
        const double mass = context.getSystem().getParticleMass(static_cast<int>(i));
        moving += mass > 0;
        twice += mass * v.dot(v);
    }
    step_ = context.getStepCount();
    if (bounds_.temperature == 0 || moving == 0)
        return;
    // an amu (nm/ps)^2 is a kJ/mol
    const double kelvin = twice * units::EV_PER_KJ_MOL / (3.0 * static_cast<double>(moving) * units::BOLTZMANN);
    if (!(kelvin <= bounds_.temperature))
        broken("temperature",
               c10::str("the temperature of the model's atoms is ", kelvin, " K; expected at most ",
                        bounds_.temperature, " K (maxTemperature); the run has blown up, or the bound is too low"));
}

void StepWatch::check_distance(const at::Tensor &positions, const at::Tensor &box) {
    Frame frame;
    frame.positions = positions * units::ANGSTROM_PER_NM;
    frame.cell = box.defined() ? box * units::ANGSTROM_PER_NM : at::zeros({3, 3}, at::kDouble);
    find_edges(frame, at::full({3}, box.defined(), at::kBool), bounds_.distance);
    if (frame.edge_index.size(1) == 0)
        return;
    const auto end = [&](int row) {
        return particles_[static_cast<std::size_t>(frame.edge_index[row][0].item<std::int64_t>())];
    };
    broken("distance",
           c10::str("atoms ", end(0), " and ", end(1), " are nearer than ", bounds_.distance,
                    " A (minDistance), which the model was not made for; the run has blown up, or the bound "
                    "is too high"));
}

void StepWatch::look(const at::Tensor &positions, const at::Tensor &box, const std::vector<Vec3> &forces) {
    if (bounds_.force > 0) {
        const double most = std::pow(bounds_.force * KJ_PER_NM, 2);
        for (const std::int64_t i : particles_) {
            const Vec3 &f = forces[static_cast<std::size_t>(i)];
            if (f.dot(f) > most) {
                broken("force", c10::str("the force on atom ", i, " is ", std::sqrt(f.dot(f)) / KJ_PER_NM,
                                         " eV/A; expected at most ", bounds_.force,
                                         " eV/A (maxForce); the run has blown up, or the bound is too low"));
                break;
            }
        }
    }
    if (bounds_.distance > 0)
        check_distance(positions, box);
}

std::string StepWatch::undo(ContextImpl &context, const std::string &sentence) {
    const std::string told = save(context, sentence);
    if (step_ >= 0 && step_ == context.getStepCount()) { // else no step is under way
        std::vector<Vec3> now;
        Vec3 box[3];
        context.getPeriodicBoxVectors(box[0], box[1], box[2]);
        if (box[0] != box_[0] || box[1] != box_[1] || box[2] != box_[2]) // of a barostat's trial
            context.setPeriodicBoxVectors(box_[0], box_[1], box_[2]);
        context.getPositions(now);
        if (now != positions_)
            context.setPositions(positions_);
        context.getVelocities(now);
        if (now != velocities_)
            context.setVelocities(velocities_);
    }
    step_ = -1;
    return told;
}

std::string StepWatch::save(ContextImpl &context, const std::string &sentence) const {
    if (bounds_.frame.empty())
        return sentence;
    std::vector<Vec3> positions, velocities;
    context.getPositions(positions);
    context.getVelocities(velocities);
    Vec3 box[3];
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    const std::filesystem::path target(bounds_.frame), partial(bounds_.frame + ".partial");
    {
        std::ofstream file(partial);
        std::string quoted = sentence;
        for (char &c : quoted)
            c = c == '"' || c == '\n' ? '\'' : c;
        file << particles_.size() << "\nProperties=species:S:1:pos:R:3:velo:R:3 step=" << context.getStepCount()
             << " error=\"" << quoted << '"' << std::setprecision(17);
        if (periodic_) {
            file << " Lattice=\"";
            for (int a = 0; a < 3; a++)
                for (int k = 0; k < 3; k++)
                    file << (a + k > 0 ? " " : "") << box[a][k] * units::ANGSTROM_PER_NM;
            file << "\" pbc=\"T T T\"";
        }
        file << '\n';
        for (std::size_t row = 0; row < particles_.size(); row++) {
            const auto i = static_cast<std::size_t>(particles_[row]);
            file << (elements_.empty() ? "X" : elements_[row]);
            for (int k = 0; k < 3; k++)
                file << ' ' << positions[i][k] * units::ANGSTROM_PER_NM;
            for (int k = 0; k < 3; k++)
                file << ' ' << velocities[i][k] / NM_PER_PS;
            file << '\n';
        }
        file.flush();
        if (!file) {
            std::error_code ignored;
            std::filesystem::remove(partial, ignored);
            return sentence + "; its frame could not be written to " + target.string();
        }
    }
    std::error_code failed;
    std::filesystem::rename(partial, target, failed);
    return sentence + (failed ? "; its frame could not be written to " : "; its frame is in ") + target.string();
}

} // namespace equistride
