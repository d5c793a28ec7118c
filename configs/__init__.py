"""One file per experiment: `get_config(arg)` returns an edited `flcl.config.defaults(method)`."""
