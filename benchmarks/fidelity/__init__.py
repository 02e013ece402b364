"""The fidelity benchmark: every model on the same simulated people, with the same number of images, against truth."""
