// A C++ program without Python or torch in its sources: System XML in, energy out.
#include <OpenMM.h>
#include <openmm/serialization/XmlSerializer.h>

#include <cstdio>
#include <fstream>
#include <memory>

int main(int, char **argv) {
    try {
        OpenMM::Platform::loadPluginLibrary(argv[1]);
        std::ifstream xml(argv[2]), numbers(argv[3]);
        const std::unique_ptr<OpenMM::System> system(OpenMM::XmlSerializer::deserialize<OpenMM::System>(xml));
        std::vector<OpenMM::Vec3> positions(static_cast<std::size_t>(system->getNumParticles()));
        for (OpenMM::Vec3 &p : positions)
            numbers >> p[0] >> p[1] >> p[2];
        OpenMM::VerletIntegrator integrator(0.001);
        OpenMM::Context context(*system, integrator, OpenMM::Platform::getPlatformByName("Reference"));
        context.setPositions(positions);
        std::printf("%.17g\n", context.getState(OpenMM::State::Energy).getPotentialEnergy());
        positions[1] = positions[0];
        context.setPositions(positions);
        context.getState(OpenMM::State::Energy);
    } catch (const OpenMM::OpenMMException &error) {
        std::printf("%s\n", error.what());
        return 0;
    }
    return 1;
}
