// What both styles need of LAMMPS: units, errors, the box.
#pragma once

#include "equistride/units.h"
#include "model/model.h"

#include "error.h"
#include "exceptions.h"
#include "update.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <limits>
#include <memory>
#include <string>

namespace LAMMPS_NS {
class Comm;
class Domain;
class LAMMPS;
} // namespace LAMMPS_NS

namespace equistride::lammps {

/// The units of a run: equistride's are eV, A and fs.
struct RunUnits {
    double energy;       ///< LAMMPS's units of energy in 1 eV
    double femtoseconds; ///< fs in LAMMPS's unit of time
    double bar;          ///< bar in LAMMPS's unit of pressure
};

/// Raises c10::ValueError where the units are neither metal nor real.
RunUnits units_of(const LAMMPS_NS::Update &update);

/// A word of the input as a number. Raises c10::ValueError where it is none or is less than `least`.
double number(const std::string &keyword, const std::string &word,
              double least = std::numeric_limits<double>::lowest());

/// What `device` and `precision` may be.
inline const std::vector<std::string> DEVICE_CHOICES = {"auto", "cpu", "cuda"};
inline const std::vector<std::string> PRECISION_CHOICES = {"auto", "float32", "float64"};

/// The word, where it is one of the choices. Raises c10::ValueError where not.
const std::string &one_of(const std::vector<std::string> &choices, const std::string &keyword, const std::string &word);

/// The precision that `choice` names for a model; `auto` is its own.
at::ScalarType precision_of(const std::string &choice, const Model &model);

/// Lattice vectors as rows [3, 3] A, zeros along open axes.
at::Tensor cell_of(const LAMMPS_NS::Domain &domain);
/// Stretch the box about the origin until its lattice vectors are these [3, 3] A; atoms are the caller's business.
void set_cell(LAMMPS_NS::Domain &domain, const at::Tensor &cell);
/// Which axes are periodic [3].
at::Tensor periodicity_of(const LAMMPS_NS::Domain &domain);

/// The device that `choice` names. The processes of one computer share its GPUs in turn; models are
/// told with how many they share its memory.
at::Device choose_device(const std::string &choice, MPI_Comm world);

/// The model of a file, read by one process. Raises c10::ValueError on all where it cannot be read, and as
/// Model::from_content().
/// @param trust  the user's word for a compiled one
std::unique_ptr<Model> read_model(const std::string &path, bool trust, MPI_Comm world, bool verify = true);

/// The sentence that `body` fails with; empty where it does not.
template <class Body> std::string failure_of(Body body) {
    try {
        body();
    } catch (const LAMMPS_NS::LAMMPSException &) {
        throw;
    } catch (const c10::Error &failure) {
        return failure.what_without_backtrace();
    } catch (const std::exception &failure) {
        return failure.what();
    }
    return {};
}

/// The first process's sentence, on all of them; empty where there is none.
std::string shared_sentence(std::string sentence, MPI_Comm world);

/// End the run on all processes with this one's sentence, which reaches the screen before MPI takes them down.
void end_run(LAMMPS_NS::Error *error, const std::string &style, const std::string &sentence);

/// End the run with a sentence where `body` throws on this process.
template <class Body> void guarded(LAMMPS_NS::Error *error, const std::string &style, Body body) {
    const std::string sentence = failure_of(body);
    if (!sentence.empty())
        end_run(error, style, sentence);
}

/// The same where all processes call it together: one sentence, once.
template <class Body>
void guarded_together(LAMMPS_NS::Error *error, MPI_Comm world, const std::string &style, Body body) {
    const std::string sentence = shared_sentence(failure_of(body), world);
    if (!sentence.empty())
        error->all(style, 0, LAMMPS_NS::Error::NOLASTLINE, style + ": " + sentence);
}

} // namespace equistride::lammps
