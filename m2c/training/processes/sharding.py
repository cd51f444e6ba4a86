"""What Accelerate's configuration may spread over devices: what is trained, its gradients and the optimiser's state."""

import os
from datetime import timedelta

from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import InitProcessGroupKwargs, is_torch_version, parse_flag_from_env, patch_environment
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer

from m2c.training.config import TrainingConfig

from .fsdp import shard_trained


USE_FSDP = "ACCELERATE_USE_FSDP"
# All else of Accelerate's configuration of FSDP has nothing to act on, or no effect on a result.
FSDP_SETTINGS = {
    "fsdp_version": "2",
    "fsdp_auto_wrap_policy": "NO_WRAP",
    "fsdp_offload_params": "false",
    "fsdp_cpu_ram_efficient_loading": "false",
    "fsdp_activation_checkpointing": "false",
}
# How long processes wait for each other. Each encodes its share of the features without a word to the others, and not all are
# equally fast: NCCL would give up after ten minutes. The launcher notices at once if one ends; one that hangs takes this long.
PATIENCE = timedelta(hours=6)


def build_accelerator(**arguments) -> Accelerator:
    """An [`Accelerator`] of these arguments, whose processes wait for each other as long as `PATIENCE`, and which leaves FSDP
    to [`shard`]. Accelerate itself would store the frozen CLIP in every checkpoint, and on a CPU it would run DDP in place of
    FSDP, without a word.

    Raises:
        ValueError: if the configuration of Accelerate asks for what cannot work here; see [`check_sharding`].
    """
    with patch_environment(**{USE_FSDP: "false"}):
        accelerator = Accelerator(**arguments, kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    check_sharding(accelerator)
    return accelerator


def check_sharding(accelerator: Accelerator) -> None:
    """Frozen weights encode images, validate and are saved outside of what Accelerate wraps, so they must be whole and exact.

    Raises:
        ValueError: under DeepSpeed's ZeRO-3, which cuts them up; under DeepSpeed with mixed precision, which rounds them; and
            under FSDP with other than `FSDP_SETTINGS`, or before PyTorch 2.7.
    """
    plugin = accelerator.state.deepspeed_plugin
    if plugin is not None and plugin.hf_ds_config.is_zero3():
        raise ValueError(
            "DeepSpeed's ZeRO-3 cuts up the weights, of which all but a few are frozen here and needed whole; use DDP, FSDP or "
            "DeepSpeed's ZeRO-2, see docs/training.md"
        )
    if plugin is not None and accelerator.mixed_precision != "no":
        raise ValueError(
            "DeepSpeed rounds all weights to the precision of --mixed_precision; leave it out, and set torch_autocast in the "
            "configuration of DeepSpeed, as in docs/accelerate/zero2.json"
        )
    if parse_flag_from_env(USE_FSDP):
        _check_fsdp()


def _check_fsdp() -> None:
    if is_torch_version("<", "2.7"):
        raise ValueError("FSDP needs PyTorch 2.7 or later; update it, or use DDP, see docs/training.md")
    for name, wanted in FSDP_SETTINGS.items():
        found = os.environ.get(name.upper(), wanted)
        if found.lower() != wanted.lower():
            raise ValueError(
                f"FSDP spreads what is trained here and nothing else, and {name} {found} does not fit that; set it to "
                f"{wanted}, as in docs/accelerate/fsdp.yaml"
            )


def shard(accelerator: Accelerator, task: nn.Module) -> None:
    """Cuts up what is trained, in place, if the configuration of Accelerate asks for FSDP and there are several processes. To
    be called before there is an optimiser."""
    if parse_flag_from_env(USE_FSDP) and accelerator.num_processes > 1:
        shard_trained(task, accelerator)


def prepare(accelerator: Accelerator, task: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, AcceleratedOptimizer]:
    """[`Accelerator.prepare`], after [`shard`]: what is cut up is not wrapped in anything else."""
    if isinstance(task, FSDPModule):
        return accelerator.prepare_model(task, evaluation_mode=True), accelerator.prepare_optimizer(optimizer)
    return accelerator.prepare(task, optimizer)


def tell_deepspeed(accelerator: Accelerator, config: TrainingConfig) -> None:
    """What DeepSpeed, if it is in use, does by a configuration of its own; before anything is prepared."""
    plugin = accelerator.state.deepspeed_plugin
    if plugin is not None:
        # It would ask the data loader, and a stream has none to show.
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.batch_size
        plugin.deepspeed_config["gradient_clipping"] = config.max_grad_norm
