"""Following a run in TensorBoard or trackio, through Accelerate."""

from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from m2c.training.config import TrainingConfig

from .run_record import public_config


# Below the output folder; the names of its files tell the machine.
TENSORBOARD_FOLDER = "tensorboard"


def log_with(config: TrainingConfig) -> list[str] | None:
    """Trackers for `Accelerator(log_with=..., project_dir=Path(config.output_dir, TENSORBOARD_FOLDER))`; `None` for none.

    Raises:
        ValueError: if a tracker is not installed.
    """
    trackers = [tracker for tracker in config.report_to if tracker != "none"]
    installed = {str(tracker) for tracker in get_available_trackers()}
    missing = " ".join(tracker for tracker in trackers if tracker not in installed)
    if missing:
        raise ValueError(f"--report_to {missing}: not installed; pip install {missing}, or leave it out")
    return trackers or None


def start(accelerator: Accelerator, config: TrainingConfig, step: int) -> None:
    """Opens the trackers. From here on `accelerator.log(figures, step=step)` reaches them.

    In trackio the stage makes the project, as other stages have other losses, and the output folder's name the run.

    Args:
        accelerator: made with [`log_with`].
        config: of the run.
        step: steps that lie behind a resumed run, else 0. TensorBoard forgets what the interrupted run wrote after them;
            trackio goes on with the latest run of this name and keeps both, which are equal.
    """
    accelerator.init_trackers(
        f"m2c-stage-{config.stage}",
        init_kwargs={
            "tensorboard": {"purge_step": step + 1},
            "trackio": {
                "name": Path(config.output_dir).resolve().name,
                "config": public_config(config),
                "resume": "allow" if step else "never",
            },
        },
    )


def end(accelerator: Accelerator) -> None:
    """Closes the trackers, and nothing else: `Accelerator.end_training` would end the processes' connection, too."""
    for tracker in accelerator.trackers:
        tracker.finish()
