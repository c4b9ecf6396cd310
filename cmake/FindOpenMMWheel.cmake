# Imported target `openmm_wheel`: headers and library of the openmm that this Python imports, a wheel of PyPI or a package of conda.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c "import importlib.metadata as m, importlib.util as u, os, sys; d = os.path.join(os.path.dirname(os.path.dirname(u.find_spec('openmm').origin)), 'OpenMM.libs'); print(d if os.path.isdir(d) else sys.prefix, m.version('openmm'), sep=';')"
  OUTPUT_VARIABLE _openmm OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _failed)
list(POP_FRONT _openmm EQUISTRIDE_OPENMM_DIR EQUISTRIDE_OPENMM_VERSION)
if(_failed OR NOT EXISTS "${EQUISTRIDE_OPENMM_DIR}/include/OpenMM.h")
  message(FATAL_ERROR "the headers of OpenMM were not found beside the openmm of ${Python_EXECUTABLE}: pip install 'openmm>=8.6.1,<8.7'")
endif()
set(EQUISTRIDE_OPENMM_RPATH ";${EQUISTRIDE_OPENMM_DIR}/lib")
if(EQUISTRIDE_OPENMM_DIR MATCHES "${EQUISTRIDE_ISOLATED}")
  set(EQUISTRIDE_OPENMM_RPATH "")
endif()
add_library(openmm_wheel INTERFACE)
target_include_directories(openmm_wheel SYSTEM INTERFACE "${EQUISTRIDE_OPENMM_DIR}/include")
target_link_directories(openmm_wheel INTERFACE "${EQUISTRIDE_OPENMM_DIR}/lib")
target_link_libraries(openmm_wheel INTERFACE OpenMM)
