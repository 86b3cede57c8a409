// Whether this machine can run what the other files were compiled for.
#if defined(__x86_64__)
extern "C" __attribute__((visibility("default"))) int stele_is_supported() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}
#else
extern "C" __attribute__((visibility("default"))) int stele_is_supported() { return 0; }
#endif
