"""Benchmarks of what runs on a GPU: one question a file; on a CPU they are rehearsed and their figures mean nothing."""
