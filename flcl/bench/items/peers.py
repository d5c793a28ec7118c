"""The same work in PyTorch, if it is installed: TorchCFM's U-Net, Transformers' ViT with PEFT."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from flcl import files, settings
from flcl.bench.figures import Figure, timed
from flcl.bench.items.generators import Sampling
from flcl.bench.programs import (
    CLASSES,
    Training,
    Unmodulated,
    dtype_of,
    method_of,
    random_batch,
)
from flcl.bench.rounds import interleave
from flcl.bench.sizes import Size


class MissingError(Exception):
    """A peer is not installed or cannot run here; the text says what to do."""


class Form(NamedTuple):
    """How PyTorch runs a network."""

    channels_last: bool = False
    compiled: bool = False


FORMS: dict[str, tuple[Form, str]] = {
    "eager": (Form(), "float32"),
    "channels_last": (Form(channels_last=True), "float32"),
    "compile": (Form(compiled=True), "float32"),
    "bfloat16": (Form(), "bfloat16"),
    "all": (Form(True, True), "bfloat16"),
}
"""Each way alone and all together, with the type of the activations on both sides."""


def torchcfm_step(size: Size, rounds: int) -> Iterator[Figure]:
    """Train step of the U-Net without classes against TorchCFM's in PyTorch."""
    device = torch_device("torch", "torchcfm")
    run = size.generator_run(model__dtype=dtype_of(size))
    ours, peer = Training(run, 1, Unmodulated), unet_step(run, device)
    seconds = interleave({"ours": ours, "peer": peer}, rounds, warm=2)
    more = ours.rates(seconds["ours"])
    yield timed("torchcfm_step", seconds["ours"], seconds["peer"], note=_how(device, run), **more)


def torchcfm_forms(size: Size, rounds: int) -> Iterator[Figure]:
    """Train step of the U-Net against TorchCFM's, compiled, with channels last and in bfloat16."""
    device = torch_device("torch", "torchcfm")
    left_out, ours = [], {}
    for name, (form, dtype) in FORMS.items():
        run = size.generator_run(model__dtype=dtype)
        if dtype not in ours:
            ours = {dtype: Training(run, 1, Unmodulated)}
        try:
            calls = {"ours": ours[dtype], "peer": unet_step(run, device, form)}
            seconds = interleave(calls, rounds, warm=2)
        except Exception as error:  # PyTorch's compiler and its kernels raise anything
            left_out.append(f"{name} ({files.reason(error)[:100]})")
            continue
        more = ours[dtype].rates(seconds["ours"])
        note = f"PyTorch {_version()}, {dtype}, {_words(form)}"
        yield timed(f"torchcfm_forms/{name}", seconds["ours"], seconds["peer"], note=note, **more)
    if left_out:
        raise MissingError(f"PyTorch cannot do it here: {', '.join(left_out)}")


def torchcfm_sampler(size: Size, rounds: int) -> Iterator[Figure]:
    """Euler sampling of a class against TorchCFM's U-Net in PyTorch, called as often."""
    device = torch_device("torch", "torchcfm")
    run = size.generator_run(model__dtype=dtype_of(size))
    ours, peer = Sampling(run), unet_sampler(run, device)
    seconds = interleave({"ours": ours, "peer": peer}, rounds, warm=2)
    yield timed(
        "torchcfm_sampler",
        seconds["ours"],
        seconds["peer"],
        images_per_second=ours.images / float(np.median(seconds["ours"])),
        function_evaluations=ours.evaluations,
        note=_how(device, run),
    )


def peft_step(size: Size, rounds: int) -> Iterator[Figure]:
    """Train step of a plain LoRA on q and v against Transformers' ViT with PEFT in PyTorch."""
    device = torch_device("torch", "transformers", "peft")
    dtype = dtype_of(size)
    run = size.classifier_run(
        "lora_sequential", model__dtype=dtype, train__min_crop=1.0, data__flip=False
    )
    ours, peer = Training(run, 2), lora_step(run, device)
    seconds = interleave({"ours": ours, "peer": peer}, rounds, warm=2)
    more = ours.rates(seconds["ours"])
    yield timed("peft_step", seconds["ours"], seconds["peer"], note=_how(device, run), **more)


def torch_device(*packages: str) -> str:
    """`cpu` or `cuda`, as JAX has it; sets PyTorch's threads to the cores that JAX uses.

    Raises `MissingError` when a package is missing or PyTorch does not run on JAX's device.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingError(f"not installed: {', '.join(missing)} (pip install {' '.join(missing)})")
    # Threads that spin while they wait hold cores that others need: on a busy machine PyTorch took
    # ten times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    backend = jax.default_backend()
    if backend == "cpu":
        torch.set_num_threads(_threads())
        return "cpu"
    if backend != "gpu" or not torch.cuda.is_available():
        raise MissingError(f"PyTorch does not run on this {backend}; install a build that does")
    return "cuda"


def unet_step(
    run: settings.FunLoRARun, device: str, form: Form | None = None
) -> Callable[[], object]:
    """One step of TorchCFM's U-Net as `Unmodulated` does it: loss, clipping, Adam, average.

    form: None = the fastest one of the device.
    """
    import torch
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    phase, form = run.phase1, form or _fastest(device)
    network, matcher = _unet(run, device, phase.dropout, form), ConditionalFlowMatcher(sigma=0.0)
    network.train()
    parameters = list(network.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.Adam(parameters, lr=phase.learning_rate, fused=True)
    images = random_batch(method_of(run), 1, (0,))["images"]
    images = images.reshape(-1, *_shape(run)).transpose(0, 3, 1, 2)
    pixels = _layout(torch.from_numpy(np.ascontiguousarray(images)), device, form)
    compiled = torch.compile(network) if form.compiled else network

    def step():
        target = pixels.float() / 127.5 - 1.0
        flip = torch.rand(len(target), 1, 1, 1, device=device) < 0.5
        target = torch.where(flip, target.flip(3), target)
        noise = torch.randn_like(target)
        t, point, velocity = matcher.sample_location_and_conditional_flow(noise, target)
        with _precision(torch, device, run):
            predicted = compiled(t, point)
        loss = torch.mean((predicted.float() - velocity) ** 2)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, phase.clip_norm)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1.0 - phase.ema_decay)
        return _finished(torch, device, loss)

    return step


def unet_sampler(run: settings.FunLoRARun, device: str) -> Callable[[], object]:
    """Euler steps of TorchCFM's U-Net from noise to bytes, as many as `Sampling` makes."""
    import torch

    form = _fastest(device)
    network = _unet(run, device, 0.0, form).eval()
    compiled = torch.compile(network) if form.compiled else network
    height, width, channels = _shape(run)
    steps = run.sample.num_steps

    @torch.no_grad()
    def draw():
        x = _layout(torch.randn(run.sample.chunk, channels, height, width), device, form)
        for number in range(steps):
            t = torch.full((len(x),), number / steps, device=device)
            with _precision(torch, device, run):
                velocity = compiled(t, x)
            x = x + velocity.float() / steps
        images = ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).cpu()
        return _finished(torch, device, images)

    return draw


def lora_step(run: settings.LoRARun, device: str) -> Callable[[], object]:
    """One step of LoRA on q and v of Transformers' ViT with random weights."""
    import peft
    import torch
    import transformers

    sizes = run.model.sizes
    shape = transformers.ViTConfig(
        hidden_size=sizes.width,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        intermediate_size=4 * sizes.width,
        image_size=run.data.image_size,
        patch_size=sizes.patch,
        num_labels=CLASSES,
    )
    vit = transformers.ViTForImageClassification(shape)
    names = {name.rpartition(".")[2] for name, _ in vit.named_modules()}
    # The queries and values have had two names.
    sites = ["q_proj", "v_proj"] if "q_proj" in names else ["query", "value"]
    rank = run.lora.rank
    adapter = peft.LoraConfig(
        r=rank, lora_alpha=rank, target_modules=sites, modules_to_save=["classifier"]
    )
    network = peft.get_peft_model(vit, adapter).to(device).train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=run.train.learning_rate, fused=True)
    batch = random_batch(method_of(run), 2, (0,))
    pixels = torch.from_numpy(batch["images"]).permute(0, 3, 1, 2).contiguous().to(device)
    labels = torch.from_numpy(batch["labels"]).long().to(device)
    compiled = torch.compile(network) if _fastest(device).compiled else network

    def step():
        with _precision(torch, device, run):
            logits = compiled(pixel_values=pixels.float() / 127.5 - 1.0).logits
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, run.train.clip_norm)
        optimizer.step()
        return _finished(torch, device, loss)

    return step


def _fastest(device: str) -> Form:
    """A GPU has kernels for channels last, and its compiler needs no other tools."""
    return Form(channels_last=device == "cuda", compiled=device == "cuda")


def _unet(run: settings.FunLoRARun, device: str, dropout: float, form: Form):
    from torchcfm.models.unet import UNetModel

    height, width, channels = _shape(run)
    network = UNetModel(
        dim=(channels, height, width),
        num_channels=run.model.width,
        num_res_blocks=run.model.blocks,
        channel_mult=run.model.multipliers,
        attention_resolutions=",".join(map(str, run.model.attention)),
        num_head_channels=run.model.head_channels,
        dropout=dropout,
    )
    return _layout(network, device, form)


def _layout(tensor_or_network, device: str, form: Form):
    """Moves a tensor or a module to the device, in the layout of the form."""
    import torch

    if not form.channels_last:
        return tensor_or_network.to(device)
    return tensor_or_network.to(device, memory_format=torch.channels_last)


def _precision(torch, device: str, run: settings.Run):
    """The precision of the run."""
    half = run.model.dtype == "bfloat16"
    return torch.autocast(device, dtype=torch.bfloat16, enabled=half)


def _finished(torch, device: str, result):
    if device == "cuda":
        torch.cuda.synchronize()
    return result


def _shape(run: settings.Run) -> tuple[int, int, int]:
    data = run.data
    return (data.image_size, data.image_size, data.channels)


def _threads() -> int:
    """Cores that this process may use; JAX takes all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _words(form: Form) -> str:
    words = (form.channels_last and "channels_last", form.compiled and "torch.compile")
    return ", ".join(filter(None, words)) or "neither compiled nor channels last"


def _version() -> str:
    import torch

    return torch.__version__


def _how(device: str, run: settings.Run) -> str:
    import torch

    if device == "cuda":
        return f"PyTorch {torch.__version__}, {run.model.dtype}, {_words(_fastest(device))}"
    policy = os.environ["OMP_WAIT_POLICY"]
    threads = f"{torch.get_num_threads()} threads for both, OMP_WAIT_POLICY={policy}"
    return f"PyTorch {torch.__version__}, float32, {threads}"
