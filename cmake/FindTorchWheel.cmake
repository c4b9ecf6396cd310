# Imported target `torch_wheel`: headers and libraries of the torch that this Python imports.
# Torch's own CMake package insists on the CUDA toolkit it was built with even for host code; five paths do not.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c "import os, torch; print(os.path.dirname(torch.__file__), torch.__version__, torch.version.cuda or 'none', int(torch._C._GLIBCXX_USE_CXX11_ABI), sep=';')"
  OUTPUT_VARIABLE _torch OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _failed)
if(_failed)
  message(FATAL_ERROR "torch cannot be imported by ${Python_EXECUTABLE}: install torch >= 2.10 first (pip install torch)")
endif()
list(GET _torch 0 EQUISTRIDE_TORCH_DIR)
list(GET _torch 1 EQUISTRIDE_TORCH_VERSION)
list(GET _torch 2 EQUISTRIDE_TORCH_CUDA)
list(GET _torch 3 _torch_cxx11)
message(STATUS "torch ${EQUISTRIDE_TORCH_VERSION} (CUDA: ${EQUISTRIDE_TORCH_CUDA}) at ${EQUISTRIDE_TORCH_DIR}")
# Where our libraries look for torch's last. What an isolated build has is gone after it, and anybody may put another there.
set(EQUISTRIDE_ISOLATED "/(pip-)?build-env-|/builds-v0/")
set(EQUISTRIDE_TORCH_RPATH ";${EQUISTRIDE_TORCH_DIR}/lib")
if(EQUISTRIDE_TORCH_DIR MATCHES "${EQUISTRIDE_ISOLATED}")
  set(EQUISTRIDE_TORCH_RPATH "")
endif()

add_library(torch_wheel INTERFACE)
target_include_directories(torch_wheel SYSTEM INTERFACE
  "${EQUISTRIDE_TORCH_DIR}/include" "${EQUISTRIDE_TORCH_DIR}/include/torch/csrc/api/include")
target_compile_definitions(torch_wheel INTERFACE "_GLIBCXX_USE_CXX11_ABI=${_torch_cxx11}")
target_link_directories(torch_wheel INTERFACE "${EQUISTRIDE_TORCH_DIR}/lib")
target_link_libraries(torch_wheel INTERFACE torch torch_cpu c10)
if(EQUISTRIDE_CUDA STREQUAL "AUTO")
  set(EQUISTRIDE_CUDA OFF)
  if(NOT EQUISTRIDE_TORCH_CUDA STREQUAL "none")
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      set(EQUISTRIDE_CUDA ON)
    else()
      message(WARNING "torch has CUDA ${EQUISTRIDE_TORCH_CUDA} but no nvcc was found: the operators are built for the CPU alone. "
                      "Install the CUDA toolkit and build again to run on the GPU.")
    endif()
  endif()
endif()
