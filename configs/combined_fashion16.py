"""FunLoRA and FM-LoRA on the embedded clothes: the generator is the memory of the classifier.

    flcl train --config=combined_fashion16 --workdir=runs/combined_fashion16

Trains `configs/funlora_fashion16.py` in the folder `generator` and FM-LoRA in the folder
`classifier`, 5 tasks of 2 classes each. Their keys are `--config.generator.model.width=32` and
`--config.classifier.train.epochs=5`.

Arguments: `:smoke`, `:use=statistics` (old statistics from samples alone); joined by commas.
"""

from configs import arguments, combined_digits, funlora_fashion16


def get_config(arg: str = ""):
    """The config of both runs; `arg` is described above."""
    words = arguments.words(arg, ("smoke",), {"use": ("map", "statistics")})
    config = combined_digits.get_config(arg)
    if "smoke" in words:
        return config
    config.generator = funlora_fashion16.get_config()
    config.generator.data.source = "fashion16"  # all ten classes
    config.generator.stream.tasks = "5"  # 2 classes each
    config.classifier.name = config.classifier.name.replace("digits", "fashion16")
    config.classifier.data.source = "fashion16"  # the tiny ViT was trained on these classes
    config.classifier.train.epochs = 3.0  # ours: 1,000 images per task
    return config
