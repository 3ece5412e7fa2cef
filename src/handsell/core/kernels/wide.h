/* Vectors of sixteen numbers, on processors that have them: HAS_WIDE is undefined elsewhere, and false at run time. */
#ifndef HANDSELL_WIDE_H
#define HANDSELL_WIDE_H
#define LANES 16
#if defined(__x86_64__) && defined(__GNUC__) && !defined(HANDSELL_NARROW) /* to test the code of others */
#include <immintrin.h>
#define WIDE __attribute__((target("avx512f")))
#define HAS_WIDE (__builtin_cpu_supports("avx512f") != 0)
#endif
#endif
