"""What a finished run shows about its method: pictures and numbers, made without training it again.

`items.py` has every analysis by name. `factors.py` looks into class factors, `updates.py` into the
updates of FM-LoRA, and `sampling.py` draws and judges samples. `drawing.py` makes the pictures, and
`writing.py` writes all of it beside the run.
"""
