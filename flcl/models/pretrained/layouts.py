"""How public weights files name and shape the parameters of our vision transformer.

A layout is a table; a new layout is an entry in `LAYOUTS`. The names are those of
google-research/vision_transformer (AugReg, .npz), of big_vision, of Hugging Face transformers (ViT,
Dinov2), of facebookresearch/dinov2 and of timm; ours are the names in the tree of
`flcl.models.vit`, with a slash between levels.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Form(NamedTuple):
    """How a file stores one of our arrays: its shape in the file, and the conversion to ours."""

    shape: Callable[[Shape, int], Shape]  # (our shape, heads) -> shape in the file
    ours: Callable[[np.ndarray, Shape], np.ndarray]  # (array of the file, our shape) -> ours


def _reshaped(shape: Callable[[Shape, int], Shape]) -> Form:
    return Form(shape, lambda array, ours: array.reshape(ours))


def _third(index: int) -> Form:
    """Queries, keys or values from one fused map, [3 * out, in] or [3 * out]."""
    return Form(
        lambda ours, heads: (3 * ours[-1], *ours[:-1]),
        lambda array, ours: array.reshape(3, ours[-1], *ours[:-1])[index].T,
    )


SAME = _reshaped(lambda ours, heads: ours)
LINEAR = Form(lambda ours, heads: ours[::-1], lambda array, ours: array.T)
CONV = Form(
    lambda ours, heads: (ours[3], ours[2], ours[0], ours[1]),
    lambda array, ours: array.transpose(2, 3, 1, 0),
)
BATCHED = _reshaped(lambda ours, heads: (1, *ours))
TOKEN = _reshaped(lambda ours, heads: (1, 1, *ours))
TO_HEADS = _reshaped(lambda ours, heads: (*ours[:-1], heads, ours[-1] // heads))
FROM_HEADS = _reshaped(lambda ours, heads: (heads, ours[0] // heads, ours[1]))


class Layout(NamedTuple):
    """One family of files.

    sign: a pattern of the start of a name that only such files have; with more: and a pattern of
    another name. prefix: pattern of a prefix that such files usually have.
    block: name of a block, with {i} for its number. other, inside: our path -> (name in the file,
    form), outside and inside blocks.
    ignored: pattern of the tensors that features do not use: heads and mask tokens.
    normalize: the normalisation of images, without and with LayerScale.
    resize: the value of `model.position_resize`, without and with registers.
    """

    name: str
    sign: str
    prefix: str
    block: str
    other: Mapping[str, tuple[str, Form]]
    inside: Mapping[str, tuple[str, Form]]
    ignored: str
    normalize: tuple[str, str]
    resize: tuple[str, str]
    more: str = ""

    def where(self, path: str) -> tuple[str, Form]:
        """Name (without prefix) and form in the file for our parameter `path`."""
        block, _, inner = path.partition("/")
        if not block.startswith("block_"):
            return self.other[path]
        name, form = self.inside[inner]
        return self.block.format(i=int(block.removeprefix("block_"))) + name, form

    def prefixes(self, names: Iterable[str]) -> set[str]:
        """What stands before the names of this layout in a file; empty if it has another layout.

        A prefix is any chain of words with a dot or slash after each, such as `module.backbone.`.
        """
        names = list(names)
        sign = re.compile(rf"((?:[A-Za-z_]\w*[./])*?){self.sign}")
        found = {match[1] for match in map(sign.match, names) if match}
        if not self.more:
            return found
        more = re.compile(rf"(.*?)(?:{self.more})")
        return found & {match[1] for match in map(more.fullmatch, names) if match}

    def is_usual(self, prefix: str) -> bool:
        """Whether files of this layout usually have this prefix."""
        return re.fullmatch(f"(?:{self.prefix})?", prefix) is not None

    def is_ignored(self, name: str) -> bool:
        """Whether features do not use the tensor `name`, which has no prefix."""
        return re.fullmatch(self.ignored, name) is not None


def _torch(names: Mapping[str, str]) -> dict[str, tuple[str, Form]]:
    """{our module: their module} -> the entries of its kernel (or scale) and bias."""
    table = {}
    for ours, theirs in names.items():
        norm = ours.startswith("norm")
        form = SAME if norm else CONV if ours == "patches" else LINEAR
        table[f"{ours}/{'scale' if norm else 'kernel'}"] = (f"{theirs}.weight", form)
        table[f"{ours}/bias"] = (f"{theirs}.bias", SAME)
    return table


def _gammas(first: str, second: str) -> dict[str, tuple[str, Form]]:
    return {"scale1/gamma": (first, SAME), "scale2/gamma": (second, SAME)}


_HF_OTHER = {
    "class_token": ("embeddings.cls_token", TOKEN),
    "position": ("embeddings.position_embeddings", BATCHED),
    "registers": ("embeddings.register_tokens", BATCHED),
    **_torch({"patches": "embeddings.patch_embeddings.projection", "norm": "layernorm"}),
}
_HF_ATTENTION = {
    "q": "attention.attention.query",
    "k": "attention.attention.key",
    "v": "attention.attention.value",
    "proj": "attention.output.dense",
}
_VIT = Layout(
    name="Hugging Face ViT",
    sign=r"encoder\.layer\.\d+\.layernorm_before\.",
    prefix=r"vit\.",
    block="encoder.layer.{i}.",
    other=_HF_OTHER,
    inside=_torch(
        {
            "norm1": "layernorm_before",
            **_HF_ATTENTION,
            "norm2": "layernorm_after",
            "fc1": "intermediate.dense",
            "fc2": "output.dense",
        }
    )
    # Such files have no LayerScale; with these names the error can say what is missing.
    | _gammas("layer_scale1", "layer_scale2"),
    ignored=r"(classifier|pooler)\..*|embeddings\.mask_token",
    normalize=("half", "half"),
    resize=("bicubic", "bicubic"),
)
_MLP = {"norm1": "norm1", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_DINOV2 = Layout(
    name="Hugging Face Dinov2",
    sign=r"encoder\.layer\.\d+\.norm1\.",
    prefix=r"dinov2(_with_registers)?\.",
    block="encoder.layer.{i}.",
    other=_HF_OTHER,
    inside=_torch(_MLP | _HF_ATTENTION) | _gammas("layer_scale1.lambda1", "layer_scale2.lambda1"),
    ignored=r"classifier\..*|embeddings\.mask_token",
    normalize=("imagenet", "imagenet"),
    resize=("bicubic", "bicubic_antialias"),
)
_TIMM = Layout(
    name="timm",
    sign=r"blocks\.\d+\.attn\.qkv\.",
    prefix="",
    block="blocks.{i}.",
    other={
        "class_token": ("cls_token", TOKEN),
        "position": ("pos_embed", BATCHED),
        "registers": ("reg_token", BATCHED),
        **_torch({"patches": "patch_embed.proj", "norm": "norm"}),
    },
    inside=_torch(_MLP | {"proj": "attn.proj"})
    | {f"{qkv}/kernel": ("attn.qkv.weight", _third(i)) for i, qkv in enumerate("qkv")}
    | {f"{qkv}/bias": ("attn.qkv.bias", _third(i)) for i, qkv in enumerate("qkv")}
    | _gammas("ls1.gamma", "ls2.gamma"),
    ignored=r"(head|pre_logits)\..*|mask_token",
    # The plain models of timm with LayerScale are those of DINOv2.
    normalize=("half", "imagenet"),
    resize=("bicubic_antialias", "bicubic_antialias"),
)
# The names of timm, but a mask token beside LayerScale, and registers with a name of their own. The
# two kinds of models are resized with different options of the same code (`interpolate_offset`).
_META = _TIMM._replace(
    name="DINOv2",
    sign=r"blocks\.\d+\.ls1\.gamma",
    more="register_tokens|mask_token",
    other={**_TIMM.other, "registers": ("register_tokens", BATCHED)},
    normalize=("imagenet", "imagenet"),
    resize=("bicubic_offset", "bicubic_antialias"),
)


def _augreg_inside(norms: tuple[int, int], attention: int, mlp: int) -> dict:
    """The entries inside a block; the arguments are the numbers in the names of its modules."""
    norm1, norm2 = (f"LayerNorm_{number}" for number in norms)
    attention, mlp = f"MultiHeadDotProductAttention_{attention}", f"MlpBlock_{mlp}"
    table = {
        "proj/kernel": (f"{attention}/out/kernel", FROM_HEADS),
        "proj/bias": (f"{attention}/out/bias", SAME),
    }
    for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
        for kind in ("kernel", "bias"):
            table[f"{ours}/{kind}"] = (f"{attention}/{theirs}/{kind}", TO_HEADS)
    for ours, theirs, weight in (
        ("norm1", norm1, "scale"),
        ("norm2", norm2, "scale"),
        ("fc1", f"{mlp}/Dense_0", "kernel"),
        ("fc2", f"{mlp}/Dense_1", "kernel"),
    ):
        for kind in (weight, "bias"):
            table[f"{ours}/{kind}"] = (f"{theirs}/{kind}", SAME)
    return table | _gammas("LayerScale_0", "LayerScale_1")


_AUGREG = Layout(
    name="AugReg",
    sign=r"Transformer/encoderblock_\d+/MultiHeadDotProductAttention_1/",
    prefix="(opt/)?target/",
    block="Transformer/encoderblock_{i}/",
    other={
        "class_token": ("cls", TOKEN),
        "position": ("Transformer/posembed_input/pos_embedding", BATCHED),
        # No such file has registers; with this name the error can say what is missing.
        "registers": ("registers", BATCHED),
        "patches/kernel": ("embedding/kernel", SAME),
        "patches/bias": ("embedding/bias", SAME),
        "norm/scale": ("Transformer/encoder_norm/scale", SAME),
        "norm/bias": ("Transformer/encoder_norm/bias", SAME),
    },
    inside=_augreg_inside((0, 2), attention=1, mlp=3),
    # The layer `pre_logits` comes after the features.
    ignored=r"(head|pre_logits)/.*",
    normalize=("half", "half"),
    resize=("bilinear", "bilinear"),
)
# Each kind of module has its own count here, and the class token has no position.
_BIG_VISION = _AUGREG._replace(
    name="big_vision",
    sign=r"Transformer/encoderblock_\d+/MultiHeadDotProductAttention_0/",
    prefix="params/(img/)?",
    other={**_AUGREG.other, "position": ("pos_embedding", BATCHED)},
    inside=_augreg_inside((0, 1), attention=0, mlp=0),
)
_OUTSIDE = ("patches/kernel", "patches/bias", "norm/scale", "norm/bias", "class_token", "position")
_OUTSIDE += ("registers",)
_OWN = Layout(
    name="flcl",
    sign=r"block_\d\d/q/kernel$",
    prefix="",
    block="block_{i:02d}/",
    other={name: (name, SAME) for name in _OUTSIDE},
    inside={name: (name, SAME) for name in _DINOV2.inside},
    ignored=r"head/.*",
    normalize=("half", "half"),
    resize=("bicubic", "bicubic"),
)

# The first that matches is taken: _META before _TIMM, which has fewer signs.
LAYOUTS = (_AUGREG, _BIG_VISION, _VIT, _DINOV2, _META, _TIMM, _OWN)
