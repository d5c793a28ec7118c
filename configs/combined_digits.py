"""FunLoRA and FM-LoRA on the embedded digits: the generator is the memory of the classifier.

    flcl train --config=combined_digits --workdir=runs/combined_digits

Trains `configs/funlora_digits.py` in the folder `generator` and `configs/fmlora_digits.py:paper` in
the folder `classifier`, 5 tasks of 2 classes each. Their keys are, for example,
`--config.generator.model.width=32` and `--config.classifier.train.epochs=5`.

Arguments: `:smoke`, `:use=statistics` (old statistics from samples alone); joined by commas.
"""

import ml_collections

from configs import arguments, fmlora_digits, funlora_digits


def get_config(arg: str = ""):
    """The config of both runs; `arg` is described above."""
    words = arguments.words(arg, ("smoke",), {"use": ("map", "statistics")})
    size = "smoke" if "smoke" in words else ""
    config = ml_collections.ConfigDict()
    config.generator = funlora_digits.get_config(size)
    # Only features that move need a memory, and those of the paper's form move most.
    config.classifier = fmlora_digits.get_config(",".join(filter(None, (size, "paper"))))
    config.classifier.memory.use = words.get("use", "map")  # ours: better on the digits
    if size:
        config.classifier.memory.per_class = 4  # samples of an untrained generator
    return config
