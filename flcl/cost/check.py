"""Checks a run before a machine is rented: compiles its programs for that machine."""

import dataclasses
import importlib.metadata
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh

from flcl import methods, settings
from flcl.adapters.modulate import strategy_for
from flcl.cost import batches, hlo, projection
from flcl.cost.meter import REPLICATED, measure
from flcl.cost.programs import Program, programs_of, with_batch, without_files
from flcl.cost.targets import Target, target_of
from flcl.data.sequence.stream import TaskStream
from flcl.devices import mesh as meshes
from flcl.methods.base import Method
from flcl.runs import setup


def check(
    run: settings.Run,
    stream: TaskStream,
    topology: str,
    *,
    programs: Sequence[str] = (),
    batch_search: bool = False,
    utilisation: float = projection.UTILISATION,
    say: Callable[[str], None] = lambda text: None,
) -> dict:
    """The memory and work of the programs of a run on each device of `topology`, as JSON values.

    Args:
      topology: such as `v5e:4x4` or `h100:8`.
      programs: names of programs to compile: phase1, phase2, sampler or features; () = all programs
        of the method.
      batch_search: compile the largest batch instead of only estimating it.
      utilisation: share of the peak FLOP/s that the projection assumes.
      say: called with one line before each compilation, which may take minutes.

    Returns:
      `name`, `topology`, `chip`, `devices`, `devices_per_chip`, `mesh`, `hbm_bytes` and
      `usable_bytes` of one device, `replicated_above`, `versions`, `assumptions`, `problems` (one
      line each, empty if there are none) and for each of `programs`: `name`, `batch_key`, `images`,
      `parameter_bytes` (before they are divided), `memory`, `required_bytes`, `fits`, `refused`,
      `flops_per_device`, `one_device_flops`, `replication`, `uncounted` (why one of these is
      unknown), `collectives`, `largest_batch`, `projection`, `seconds`.

    Raises `ValueError` for an unknown topology or program, an invalid share, a compiler that is not
    installed and a batch that does not split over the devices.
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"--utilisation={utilisation}: must be above 0 and at most 1")
    target = target_of(topology)
    mesh = meshes.make_mesh(run.runtime.fsdp, target.devices)
    setup.check_batches(run, mesh)
    run = _as_on(target.platform, run)
    method = methods.build(run, stream)
    figures = []
    for program in _chosen(programs_of(method), programs):
        say(f"compiling {program.name} for {topology} ({mesh.size} devices) ...")
        figures.append(_figures(program, method, mesh, target, batch_search, utilisation))
    return {
        "name": run.name,
        "topology": topology,
        **_machine(target, mesh),
        "assumptions": projection.assumptions(target.chip, utilisation),
        "programs": figures,
        "problems": [line for entry in figures for line in problems(entry, target.chip.usable)],
    }


def _machine(target: Target, mesh: Mesh) -> dict:
    """What `check` returns about the devices and their compiler."""
    return {
        "chip": target.chip.name,
        "devices": mesh.size,
        "devices_per_chip": target.chip.devices,
        "mesh": dict(mesh.shape),
        "hbm_bytes": target.chip.hbm // target.chip.devices,
        "usable_bytes": target.chip.usable,
        "replicated_above": REPLICATED,
        "versions": _versions(),
    }


def problems(figures: dict, usable: int) -> list[str]:
    """Why a program cannot or should not run as it is, one line each.

    figures: figures of one program, see `meter.measure`; usable: bytes of a device.
    """
    lines, gib = [], 2**30
    if not figures["fits"]:
        needed, largest = figures["required_bytes"], figures["largest_batch"]
        text = figures["refused"] or f"it needs {needed / gib:.2f} GiB of a device's HBM"
        line = f"{figures['name']} does not fit: {text}"
        if not figures["refused"]:
            line += f", of which {usable / gib:.2f} GiB can be used"
        if largest and largest["images"]:
            line += f"; try --config.{figures['batch_key']}={largest['images']}"
        lines.append(line)
    ratio = figures["replication"]
    if ratio is not None and ratio > REPLICATED:
        lines.append(
            f"{figures['name']} replicates work: its devices together do {ratio:.2f} "
            f"times the work of one (more than {REPLICATED} is not accepted)"
        )
    return lines


def _figures(
    program: Program, method: Method, mesh, target: Target, searching: bool, utilisation: float
) -> dict:
    """The figures of a program, its largest batch and, for a train step, the projection."""
    figures = measure(program, method, mesh, target)
    usable, granule = target.chip.usable, program.groups * mesh.size

    def with_images(images: int) -> dict:
        run = with_batch(method.run, program.batch_key, images)
        return measure(program, methods.build(run, method.stream), mesh, target)

    if searching:
        figures["largest_batch"] = batches.search(figures, with_images, usable, granule)
    else:
        figures["largest_batch"] = batches.largest(figures, usable, granule)
    exchanges, flops = figures["collectives"], figures["flops_per_device"]
    figures["collectives"] = hlo.summary(exchanges)
    figures["projection"] = None
    if flops and program.trains:
        figures["projection"] = projection.project(
            flops, exchanges, mesh.shape["fsdp"], mesh.size, target.chip, utilisation
        )
    return figures


def _as_on(platform: str, run: settings.Run) -> settings.Run:
    """`run` with the settings that depend on the machine filled in for `platform`."""
    run = without_files(run)
    if isinstance(run, settings.FunLoRARun) and run.adapter.strategy == "auto":
        adapter = dataclasses.replace(run.adapter, strategy=strategy_for(platform))
        run = dataclasses.replace(run, adapter=adapter)
    return run


def _chosen(known: list[Program], names: Sequence[str]) -> list[Program]:
    for name in names:
        if name not in [program.name for program in known]:
            raise ValueError(
                f"--programs={','.join(names)}: {name!r} is not a program of this method; they "
                f"are {', '.join(program.name for program in known)}"
            )
    return [program for program in known if not names or program.name in names]


def _versions() -> dict[str, str]:
    versions = {"jax": jax.__version__}
    for name in ("libtpu", "jax-cuda13-plugin"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
