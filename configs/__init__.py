"""One file per experiment: `get_config(arg)` returns edited `bridge.defaults(method)`."""
