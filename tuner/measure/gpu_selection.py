"""The GPUs of this machine that a server sees, and those that a model uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tritonclient.grpc import model_config_pb2

from tuner.core.nvml import Gpu


def visible_gpus(selection: str, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The GPUs of a selection, in the order in which CUDA numbers them.

    As in CUDA, the list ends at the first unknown name (CUDA C++ Programming Guide, "CUDA Environment Variables"). A
    GPU with MIG instances stands for its first instance, unless others are named. CUDA's order is assumed to be that of
    the PCI bus, which is true for GPUs of one kind.

    Args:
        selection: `all`, `none`, or a list of indices, `GPU:MIG` indices, or beginnings of UUIDs.
        gpus: The GPUs of this machine.
    """
    return tuple(shown for devices in _selected(selection, gpus) for shown in devices[:1])


def visible_devices(selection: str, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The GPUs and MIG instances of a selection. A GPU with MIG instances stands for all of them; see `visible_gpus`.

    Args:
        selection: The selection.
        gpus: The GPUs of this machine.
    """
    return tuple(dict.fromkeys(device for devices in _selected(selection, gpus) for device in devices))


def _selected(selection: str, gpus: Sequence[Gpu]) -> Sequence[Sequence[Gpu]]:
    """For each name of a selection, its GPU or its MIG instances, without those named before."""
    names = [name.strip() for name in selection.split(",") if name.strip()]
    if names == ["all"]:
        return [_devices(gpu) for gpu in gpus]
    chosen: list[Sequence[Gpu]] = []
    for name in names:
        devices = _named(name, gpus)
        if not devices:
            break
        if devices not in chosen:
            chosen.append(devices)
    return chosen


def gpus_in_use(config: model_config_pb2.ModelConfig, visible: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The GPUs that the instance groups of an effective config name, in the order of `visible`.

    Triton's `gpus` are indices of the visible GPUs. A group that leaves the device to the model (KIND_MODEL) may use
    any of them, and so may the models of an ensemble.
    """
    used: set[Gpu] = set()
    if config.HasField("ensemble_scheduling"):
        used.update(visible)
    for group in config.instance_group:
        if group.kind == group.KIND_CPU:
            continue
        places = group.gpus or range(len(visible))
        used.update(visible[place] for place in places if 0 <= place < len(visible))
    return tuple(gpu for gpu in visible if gpu in used)


def requires_gpus(config: model_config_pb2.ModelConfig) -> bool:
    """Whether an instance group of an effective config runs on a GPU."""
    return any(group.kind == group.KIND_GPU for group in config.instance_group)


def may_use_gpus(config: model_config_pb2.ModelConfig) -> bool:
    """Whether a model may run on a GPU, by its file: without instance groups, the backend chooses."""
    if config.instance_group:
        return any(group.kind != group.KIND_CPU for group in config.instance_group)
    return bool(config.backend != "python")  # which chooses the CPU


def _named(name: str, gpus: Sequence[Gpu]) -> Sequence[Gpu]:
    """The GPU of a name, or its MIG instances; empty: it is unknown, or has none."""
    if name.isdecimal():
        return next((_devices(gpu) for gpu in gpus if gpu.index == int(name)), ())
    number, colon, place = name.partition(":")
    if colon and number.isdecimal() and place.isdecimal():
        instances = (instance for gpu in gpus if gpu.index == int(number) for instance in gpu.mig_instances() or ())
        return [instance for instance in instances if instance.mig_index == int(place)]
    if name.startswith("MIG-"):
        return _single(
            instance for gpu in gpus for instance in gpu.mig_instances() or () if instance.uuid.startswith(name)
        )
    if name.startswith("GPU-"):
        return [
            device for board in _single(gpu for gpu in gpus if gpu.uuid.startswith(name)) for device in _devices(board)
        ]
    return ()


def _devices(gpu: Gpu) -> Sequence[Gpu]:
    """A GPU itself, or its MIG instances, of which CUDA shows the first; empty: MIG without instances."""
    instances = gpu.mig_instances()
    return (gpu,) if instances is None else instances


def _single(gpus: Iterable[Gpu]) -> Sequence[Gpu]:
    """The only GPU; empty if there are none or several."""
    all_found = tuple(gpus)
    return all_found if len(all_found) == 1 else ()
