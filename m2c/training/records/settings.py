"""What must be the same for a run to go on, and what may change."""

import json
from dataclasses import asdict

from m2c.training.config import TrainingConfig


# Model and data may lie elsewhere: what they are is in [`m2c.training.records.identity`].
FREE = {
    "model",
    "dataset",
    "output_dir",
    "resume",
    "num_workers",
    "cache_dir",
    "cache_limit_gb",
    "validation_root",
    "eval_steps",
    "checkpoint_steps",
    "keep_checkpoints",
    "log_steps",
    "report_to",
    "dry_run",
}


def settings(config: TrainingConfig, processes: int) -> dict:
    """What must be the same for a resumed run to take the same steps, as JSON holds it."""
    return json.loads(json.dumps({**fixed(asdict(config)), "processes": processes}))


def fixed(config: dict) -> dict:
    """What of a configuration may not change."""
    free = set(FREE)
    if config["streaming"]:
        # Workers that stream have shards of their own, and what will come out of a stream nobody can tell but by its name.
        free -= {"num_workers", "dataset"}
    kept = {name: value for name, value in config.items() if name not in free}
    # Its patience may change, but not whether best weights are kept, nor of which steps.
    return {**kept, "early_stopping": config["early_stopping"] > 0 and f"every {config['eval_steps']} steps"}


def sources(config: dict) -> dict:
    """What a run is made of, by the names that it was given."""
    return {"model": config["model"], "dataset": config["dataset"]}


def changes(then: dict, now: dict) -> str:
    """For a message; empty if there are none."""
    return "; ".join(f"{name} was {then.get(name)}, is {value}" for name, value in now.items() if then.get(name) != value)
