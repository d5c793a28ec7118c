"""Many runs of one config: rows of methods, seeds, orders and values of keys, a workdir each."""
