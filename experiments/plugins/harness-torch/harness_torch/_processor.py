"""Say how bfloat16 products are computed on this processor, once, when the backend is loaded.

    bfloat16  by oneDNN, as they are: for processors with instructions for them (AVX512-BF16, AMX)
    float32   taken up to float32, and rounded once at the end: for all others

Without AVX-512 PyTorch does not call oneDNN but loops of its own. GFLOP/s of (256, 768) and (2304, 768)
on two quiet Zen 3 cores (experiments/plugins/bf16_products.py):

               x · weightᵀ    dout · weight    doutᵀ · x
    bfloat16       17             0.7              16
    float32       121             129             139
"""

import os
import re

import torch

VARIABLE = "HARNESS_TORCH_BF16"
WAYS = ("bfloat16", "float32")
INSTRUCTIONS = ("amx_bf16", "avx512_bf16")


def instructions():
    """Those for bfloat16 that this processor has, by the names that PyTorch gives them."""
    capabilities = torch.cpu.get_capabilities()
    return [name for name in INSTRUCTIONS if capabilities.get(name)]


def chosen():
    """How bfloat16 products are computed: as VARIABLE says, or what this processor is good at."""
    said = os.environ.get(VARIABLE)
    if said is None:
        return "bfloat16" if instructions() else "float32"
    if said not in WAYS:
        raise ValueError(f"{VARIABLE}={said}: choose {' or '.join(WAYS)}, or leave it out")
    return said


BF16_PRODUCTS = chosen()


def describe():
    """PyTorch 2.13.0+cpu: MKL, oneDNN 3.12.0, 2 threads; bfloat16 products in float32 (...)."""
    has = ", ".join(instructions()) or "no bfloat16 instructions"
    why = f"{VARIABLE}={os.environ[VARIABLE]}" if VARIABLE in os.environ else has
    count = torch.get_num_threads()
    return (
        f"PyTorch {torch.__version__}: {_libraries()}, {count} thread{'s' if count > 1 else ''}; "
        f"bfloat16 products in {BF16_PRODUCTS} ({why})"
    )


def _libraries():
    """What PyTorch says it was built with: `MKL 2024.2, oneDNN 3.12.0`."""
    built = torch.__config__.show()
    mkl = re.search(r"Math Kernel Library Version ([\d.]+)", built)
    onednn = re.search(r"MKL-DNN v([\d.]+)", built)
    found = [f"MKL {mkl[1]}"] if mkl else []
    found += [f"oneDNN {onednn[1]}"] if onednn else []
    return ", ".join(found) or "its own loops"
