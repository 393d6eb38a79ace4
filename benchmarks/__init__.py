"""Benchmarks: one question a file, never imported by the package, not in the wheel."""
