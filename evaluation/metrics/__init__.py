"""Image-quality measures: numbers in, numbers out; no files, no options."""
