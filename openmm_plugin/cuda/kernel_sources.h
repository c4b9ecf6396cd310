// The small device programs, which OpenMM compiles for its own precision (real, real4) at run time.
#pragma once

namespace equistride {

inline constexpr const char *KERNEL_SOURCES = R"(
// Positions of the model's particles, in its order. OpenMM keeps atoms in slots that change: atomIndex tells whose.
extern "C" __global__ void copyPositions(double* __restrict__ positions, const real4* __restrict__ posq,
        const real4* __restrict__ posqCorrection, const int* __restrict__ atomIndex, const int* __restrict__ order,
        const int4* __restrict__ cellOffsets, int numAtoms, double3 boxX, double3 boxY, double3 boxZ) {
    for (int slot = blockIdx.x*blockDim.x+threadIdx.x; slot < numAtoms; slot += blockDim.x*gridDim.x) {
        const int row = order[atomIndex[slot]];
        if (row < 0)
            continue;
        const real4 p = posq[slot];
        double x = p.x, y = p.y, z = p.z;
        if (posqCorrection) {
            const real4 c = posqCorrection[slot];
            x += c.x; y += c.y; z += c.z;
        }
        if (cellOffsets) {
            // Without a box the model must see whole molecules: take back the cells by which OpenMM moved the atom.
            const int4 n = cellOffsets[slot];
            x -= n.x*boxX.x + n.y*boxY.x + n.z*boxZ.x;
            y -= n.x*boxX.y + n.y*boxY.y + n.z*boxZ.y;
            z -= n.x*boxX.z + n.y*boxY.z + n.z*boxZ.z;
        }
        positions[3*row] = x;
        positions[3*row+1] = y;
        positions[3*row+2] = z;
    }
}

// Forces into OpenMM's buffer of 64-bit fixed-point numbers, which other kernels may be adding to.
extern "C" __global__ void addForces(const double* __restrict__ forces, unsigned long long* __restrict__ buffers,
        const int* __restrict__ atomIndex, const int* __restrict__ order, int numAtoms, int paddedNumAtoms) {
    for (int slot = blockIdx.x*blockDim.x+threadIdx.x; slot < numAtoms; slot += blockDim.x*gridDim.x) {
        const int row = order[atomIndex[slot]];
        if (row < 0)
            continue;
        for (int axis = 0; axis < 3; axis++)
            atomicAdd(&buffers[slot+axis*paddedNumAtoms],
                static_cast<unsigned long long>(static_cast<long long>(forces[3*row+axis]*0x100000000)));
    }
}

// Positions and velocities of all particles, in their order, times a factor each: from OpenMM's slots, and back.
extern "C" __global__ void readAtoms(double* __restrict__ positions, double* __restrict__ velocities,
        const real4* __restrict__ posq, const real4* __restrict__ posqCorrection, const mixed4* __restrict__ velm,
        const int* __restrict__ atomIndex, const int4* __restrict__ cellOffsets, int numAtoms, double3 boxX,
        double3 boxY, double3 boxZ, double length, double speed) {
    for (int slot = blockIdx.x*blockDim.x+threadIdx.x; slot < numAtoms; slot += blockDim.x*gridDim.x) {
        const int atom = atomIndex[slot];
        const real4 p = posq[slot];
        const mixed4 v = velm[slot];
        const int4 n = cellOffsets[slot];
        double x = p.x, y = p.y, z = p.z;
        if (posqCorrection) {
            const real4 c = posqCorrection[slot];
            x += c.x; y += c.y; z += c.z;
        }
        positions[3*atom] = length*(x - (n.x*boxX.x + n.y*boxY.x + n.z*boxZ.x));
        positions[3*atom+1] = length*(y - (n.x*boxX.y + n.y*boxY.y + n.z*boxZ.y));
        positions[3*atom+2] = length*(z - (n.x*boxX.z + n.y*boxY.z + n.z*boxZ.z));
        velocities[3*atom] = speed*v.x;
        velocities[3*atom+1] = speed*v.y;
        velocities[3*atom+2] = speed*v.z;
    }
}

extern "C" __global__ void writeAtoms(const double* __restrict__ positions, const double* __restrict__ velocities,
        real4* __restrict__ posq, real4* __restrict__ posqCorrection, mixed4* __restrict__ velm,
        const int* __restrict__ atomIndex, const int4* __restrict__ cellOffsets, int numAtoms, double3 boxX,
        double3 boxY, double3 boxZ, double length, double speed) {
    for (int slot = blockIdx.x*blockDim.x+threadIdx.x; slot < numAtoms; slot += blockDim.x*gridDim.x) {
        const int atom = atomIndex[slot];
        const int4 n = cellOffsets[slot];
        const double x = positions[3*atom]/length + (n.x*boxX.x + n.y*boxY.x + n.z*boxZ.x);
        const double y = positions[3*atom+1]/length + (n.x*boxX.y + n.y*boxY.y + n.z*boxZ.y);
        const double z = positions[3*atom+2]/length + (n.x*boxX.z + n.y*boxY.z + n.z*boxZ.z);
        real4 p = posq[slot]; // w is the charge
        p.x = (real) x; p.y = (real) y; p.z = (real) z;
        posq[slot] = p;
        if (posqCorrection) {
            real4 c = posqCorrection[slot];
            c.x = (real) (x - p.x); c.y = (real) (y - p.y); c.z = (real) (z - p.z);
            posqCorrection[slot] = c;
        }
        mixed4 v = velm[slot]; // w is the inverse mass
        v.x = velocities[3*atom]/speed; v.y = velocities[3*atom+1]/speed; v.z = velocities[3*atom+2]/speed;
        velm[slot] = v;
    }
}
)";

} // namespace equistride
