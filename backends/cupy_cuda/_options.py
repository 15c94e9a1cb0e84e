"""What `cupy.matmul=cublas` and its like chose: which library, where there are two ways."""

VARIABLE = "HARNESS_CUDA_ON_CPU"
"""Of the environment: the kernels run on the CPU in the GPU's place."""

CHOICES = {
    "matmul": ("cublaslt", "cublas"),
    "attention": ("cudnn", "flash"),
    "algorithm": ("first", "fastest"),
}
"""Name -> the values it may have, the default first.

matmul     cublaslt: cuBLASLt with epilogues; cublas: gemmEx and kernels of our own, never captured
attention  cudnn: SDPA where activations are bf16; flash: our own, as fp32 and tf32 always are
algorithm  first: what cuBLASLt's heuristic puts first, the same in every run; fastest: the first few are
           timed, so that two runs may differ in their last bits
"""

_chosen = {name: values[0] for name, values in CHOICES.items()}


def chosen(name):
    return _chosen[name]


def choose(options):
    """Take values over; what is not given is the default. The core has checked them."""
    _chosen.update({name: values[0] for name, values in CHOICES.items()})
    _chosen.update(options)
