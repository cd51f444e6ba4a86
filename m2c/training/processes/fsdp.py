"""FSDP: what is trained, its gradients and the state of its optimiser are spread over the processes.

Each process holds a range of the first dimension of each of these tensors. Forward and backward pass put the weights together
and cut them up again; whatever else needs them whole asks for it here. What is frozen stays whole.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def shard_trained(task: nn.Module, accelerator: Accelerator) -> None:
    """Cuts up what is trained, in place, into a part for each process. To be called before there is an optimiser."""
    frozen = {parameter for parameter in task.parameters() if not parameter.requires_grad}
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    fully_shard(task, mesh=mesh, reshard_after_forward=False, ignored_params=frozen)


def make_whole(task: nn.Module) -> dict[str, DTensor]:
    """Puts whole weights in the place of those that are cut up, and returns the latter by name. All processes have to come."""
    parts = {name: parameter for name, parameter in task.named_parameters() if isinstance(parameter, DTensor)}
    for name, part in parts.items():
        _put(task, name, nn.Parameter(part.detach().full_tensor()))
    return parts


@contextmanager
def whole_weights(task: nn.Module) -> Iterator[None]:
    """All weights are whole in here, on every process; all have to come, and do the same to them.

    What is done to the weights stays, and so do the gradients that they collect. The task itself must not be called, only its
    methods: a call is what puts the parts together. Without FSDP nothing happens.
    """
    parts = make_whole(task)
    yield
    for name, part in parts.items():
        weight = task.get_parameter(name)
        part.detach().copy_(_cut(weight.detach(), part))
        if weight.grad is not None:
            part.grad = _cut(weight.grad, part)
        _put(task, name, part)


@contextmanager
def whole_state(optimizer: Optimizer) -> Iterator[None]:
    """The state of the optimiser is whole in here, on every process, to be stored or loaded; all have to come. Without FSDP
    nothing happens."""
    for values in optimizer.state.values():
        values.update({name: value.full_tensor() for name, value in values.items() if isinstance(value, DTensor)})
    yield
    for parameter, values in optimizer.state.items():
        if isinstance(parameter, DTensor):
            same = {name: value for name, value in values.items() if value.shape == parameter.shape}
            values.update({name: _cut(value, parameter) for name, value in same.items()})


def _put(task: nn.Module, name: str, parameter: nn.Parameter) -> None:
    module, _, attribute = name.rpartition(".")
    setattr(task.get_submodule(module), attribute, parameter)


def _cut(tensor: Tensor, like: DTensor) -> DTensor:
    """What this process holds of a tensor that all processes have."""
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
