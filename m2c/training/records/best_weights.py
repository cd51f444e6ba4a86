"""The weights of the best measurement, for a run that goes on until it stops improving."""

import json
from pathlib import Path

from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from m2c.training.tasks.trained_state import load_trained, trained_state


BEST_WEIGHTS = "best.safetensors"


class BestWeights:
    """What is trained, and its figures, as it was when it measured best. Checkpoints hold it from the first measurement on.

    Args:
        accelerator: of the run.
        task: not wrapped.
    """

    def __init__(self, accelerator: Accelerator, task: nn.Module):
        self.accelerator, self.task = accelerator, task
        self.state: dict[str, Tensor] = {}
        self.figures: dict[str, float] = {}
        accelerator.register_save_state_pre_hook(self._save)
        accelerator.register_load_state_pre_hook(self._load)

    def keep(self, figures: dict[str, float]) -> None:
        self.figures = figures
        self.state = {name: tensor.detach().to("cpu", copy=True) for name, tensor in trained_state(self.task).items()}

    def put_back(self) -> dict[str, float]:
        """The figures of the weights that are in the task from now on; if none were kept, it is left as it is."""
        if self.state:
            load_trained(self.task, self.state)
        return self.figures

    def _save(self, _, __, directory: str) -> None:
        if self.state and self.accelerator.is_main_process:
            save_file(self.state, Path(directory, BEST_WEIGHTS), metadata={"figures": json.dumps(self.figures)})

    def _load(self, _, directory: str) -> None:
        path = Path(directory, BEST_WEIGHTS)
        if path.exists():
            self.state = load_file(path)
            with safe_open(path, "pt") as file:
                self.figures = json.loads(file.metadata()["figures"])
