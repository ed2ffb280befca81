"""Our kernels on the GPU at hand: checked, then timed beside what else it has. `python -m tests.bench_gpu`."""
