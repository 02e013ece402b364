"""The speed benchmark: what a case of scripts/benchmark_speed.py measures, and how."""
