// What libEquistrideOpenMM shows to C++ hosts and to the Python module.
#pragma once

#define EQUISTRIDE_OPENMM_API __attribute__((visibility("default")))
