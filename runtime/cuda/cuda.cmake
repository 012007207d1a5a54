# SPDX-License-Identifier: MIT
# The GPU part, read by CMakeLists.txt where nvcc is found: the library bnt_cuda, its test and its bench.
# Machine code for compute capability 8.0, 8.6, 8.9 and 9.0, and PTX for what comes after.
set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)

add_library(bnt_cuda STATIC ${BNT_SRC_RUNTIME_CUDA})
target_compile_options(bnt_cuda PRIVATE -Xcompiler=-Wall,-Wextra)
target_link_libraries(bnt_cuda PUBLIC bnt)

if(BNT_TESTS)
  add_executable(test_cuda tests/cuda/test_cuda.cu)
  target_link_libraries(test_cuda PRIVATE bnt_cuda)
  add_test(NAME cuda/test_cuda COMMAND test_cuda)
  set_tests_properties(cuda/test_cuda PROPERTIES SKIP_RETURN_CODE 77)
  add_executable(bench_cuda tests/cuda/bench_cuda.cu formats/int8_rows.c)
  target_link_libraries(bench_cuda PRIVATE bnt_cuda Threads::Threads ${CMAKE_DL_LIBS})
endif()
