// Marks functions that run on the host and on a GPU.
#pragma once

#ifdef __CUDACC__
#define EQUISTRIDE_HD __host__ __device__
#else
#define EQUISTRIDE_HD
#endif
