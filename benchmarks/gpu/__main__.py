"""All GPU benchmarks, one after another: ``python -m benchmarks.gpu --out FOLDER``."""

from benchmarks.gpu import dumping, kernels, student

if __name__ == "__main__":
    for benchmark in (kernels, student, dumping):
        benchmark.main()
