"""What of a task is trained, and so is what a run has to keep."""

from torch import Tensor, nn


def trained_buffers(task: nn.Module) -> dict[str, Tensor]:
    """The buffers of the modules that hold trainable parameters, by name: statistics of batch norm."""
    modules = {name.rpartition(".")[0] for name, parameter in task.named_parameters() if parameter.requires_grad}
    return {name: buffer for name, buffer in task.named_buffers() if name.rpartition(".")[0] in modules}


def trained_state(task: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters and the buffers of the modules that hold them; the frozen CLIP is not among them."""
    trained = {name for name, parameter in task.named_parameters() if parameter.requires_grad} | trained_buffers(task).keys()
    return {name: tensor for name, tensor in task.state_dict().items() if name in trained}


def load_trained(task: nn.Module, state: dict[str, Tensor]) -> None:
    """Puts back what [`trained_state`] gave. Raises `ValueError` if it is of a task that trains something else."""
    here = trained_state(task)
    unlike = {(name, tensor.shape) for name, tensor in here.items()} ^ {(name, tensor.shape) for name, tensor in state.items()}
    if unlike:
        names = sorted({name for name, _ in unlike})
        raise ValueError(f"it is of a model that trains something else: {', '.join(names[:3])} and more")
    for name, tensor in here.items():  # not by `load_state_dict`, with which FSDP would meddle
        tensor.copy_(state[name])
