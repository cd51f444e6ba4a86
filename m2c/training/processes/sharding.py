"""What Accelerate may spread over devices: gradients and the optimiser's state, but no weights."""

from accelerate import Accelerator
from accelerate.utils import DistributedType

from m2c.training.config import TrainingConfig


def check_sharding(accelerator: Accelerator) -> None:
    """Frozen weights encode images, validate and are saved outside of what Accelerate wraps, so they must be whole and exact.

    Raises:
        ValueError: under FSDP and DeepSpeed's ZeRO-3, which cut weights up, and under DeepSpeed with mixed precision, which
            rounds them.
    """
    plugin = accelerator.state.deepspeed_plugin
    if accelerator.distributed_type == DistributedType.FSDP or (plugin is not None and plugin.hf_ds_config.is_zero3()):
        raise ValueError(
            "FSDP and DeepSpeed's ZeRO-3 cut up the weights, of which all but a few are frozen here and needed whole; use DDP "
            "or DeepSpeed's ZeRO-2, see docs/training.md"
        )
    if plugin is not None and accelerator.mixed_precision != "no":
        raise ValueError(
            "DeepSpeed rounds all weights to the precision of --mixed_precision; leave it out, and set torch_autocast in the "
            "configuration of DeepSpeed, as in docs/accelerate/zero2.json"
        )


def tell_deepspeed(accelerator: Accelerator, config: TrainingConfig) -> None:
    """What DeepSpeed, if it is in use, does by a configuration of its own; before anything is prepared."""
    plugin = accelerator.state.deepspeed_plugin
    if plugin is not None:
        # It would ask the data loader, and a stream has none to show.
        plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.batch_size
        plugin.deepspeed_config["gradient_clipping"] = config.max_grad_norm
