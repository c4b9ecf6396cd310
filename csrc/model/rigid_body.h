// How a body of atoms can rotate, from its inertia alone, by Jacobi's rotations: as Rotation (momenta.h), without
// LAPACK. Host and device.
#pragma once

#include "host_device.h"

#include <cmath>

namespace equistride {

/// Of equistride.models.propagator: below this share of the largest, a moment of inertia [amu A^2] is that of an axis
/// on which all atoms lie; below POINT the largest is that of one atom.
inline constexpr double LINEAR = 1e-4, POINT = 1e-6;

class RigidBody {
public:
    /// @param inertia  amu A^2: xx, yy, zz, xy, xz, yz
    EQUISTRIDE_HD explicit RigidBody(const double *inertia) {
        double a[3][3] = {{inertia[0], inertia[3], inertia[4]},
                          {inertia[3], inertia[1], inertia[5]},
                          {inertia[4], inertia[5], inertia[2]}};
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j)
                regular_[i][j] = a[i][j];
        double axes[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}; // columns
        diagonalize(a, axes);
        double largest = POINT;
        for (int k = 0; k < 3; ++k)
            largest = std::fmax(largest, a[k][k]);
        for (int k = 0; k < 3; ++k) {
            if (a[k][k] > LINEAR * largest) {
                ++degrees_;
                continue;
            }
            for (int i = 0; i < 3; ++i)
                for (int j = 0; j < 3; ++j)
                    stuck_[i][j] += axes[i][k] * axes[j][k];
        }
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j)
                regular_[i][j] += largest * stuck_[i][j];
    }

    /// 3, or 2 where the atoms lie on a line, or 0 for one atom.
    EQUISTRIDE_HD int degrees() const { return degrees_; }

    /// The angular velocity [1/fs] that has the angular momentum `spin` [amu A^2/fs].
    EQUISTRIDE_HD void angular_velocity(const double *spin, double *omega) const {
        double wanted[3], found[3];
        free_part(spin, wanted);
        const auto &r = regular_;
        const double minors[3] = {r[1][1] * r[2][2] - r[1][2] * r[2][1], r[1][2] * r[2][0] - r[1][0] * r[2][2],
                                  r[1][0] * r[2][1] - r[1][1] * r[2][0]};
        const double det = r[0][0] * minors[0] + r[0][1] * minors[1] + r[0][2] * minors[2];
        for (int k = 0; k < 3; ++k) { // Cramer: the inverse of a symmetric matrix by its cofactors
            const int i = (k + 1) % 3, j = (k + 2) % 3;
            double sum = 0;
            for (int l = 0; l < 3; ++l) {
                const int m = (l + 1) % 3, n = (l + 2) % 3;
                sum += (r[i][m] * r[j][n] - r[i][n] * r[j][m]) * wanted[l];
            }
            found[k] = sum / det;
        }
        free_part(found, omega);
    }

private:
    EQUISTRIDE_HD void free_part(const double *vector, double *part) const {
        for (int i = 0; i < 3; ++i)
            part[i] = vector[i] - (stuck_[i][0] * vector[0] + stuck_[i][1] * vector[1] + stuck_[i][2] * vector[2]);
    }

    EQUISTRIDE_HD static void diagonalize(double (&a)[3][3], double (&axes)[3][3]) {
        constexpr int SWEEPS = 12; // 6 suffice in double precision
        for (int sweep = 0; sweep < SWEEPS; ++sweep)
            for (int p = 0; p < 2; ++p)
                for (int q = p + 1; q < 3; ++q) {
                    if (a[p][q] == 0)
                        continue;
                    const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
                    const double t = std::copysign(1.0, theta) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
                    const double c = 1 / std::sqrt(t * t + 1), s = t * c;
                    for (int k = 0; k < 3; ++k) {
                        const double kp = a[k][p], kq = a[k][q];
                        a[k][p] = c * kp - s * kq;
                        a[k][q] = s * kp + c * kq;
                    }
                    for (int k = 0; k < 3; ++k) {
                        const double pk = a[p][k], qk = a[q][k];
                        a[p][k] = c * pk - s * qk;
                        a[q][k] = s * pk + c * qk;
                        const double kp = axes[k][p], kq = axes[k][q];
                        axes[k][p] = c * kp - s * kq;
                        axes[k][q] = s * kp + c * kq;
                    }
                    a[p][q] = a[q][p] = 0;
                }
    }

    double stuck_[3][3] = {}, regular_[3][3];
    int degrees_ = 0;
};

} // namespace equistride
