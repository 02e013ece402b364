"""Estimates the noise and the receive field of low-field slices for `--lf_noise auto` and its like."""
