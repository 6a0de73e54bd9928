"""Linear layers and their kernels, by what multiplies them."""
