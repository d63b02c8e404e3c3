"""Benchmarks: Holdfast against llama-server of the same llama.cpp, and the report that the docs show."""
