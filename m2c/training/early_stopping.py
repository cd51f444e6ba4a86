"""When to end a run that has stopped improving."""

import math


class EarlyStopping:
    """Remembers the best measurement, and counts those since then that were not better.

    Its state belongs into checkpoints, so that a resumed run ends where an uninterrupted one would have. The patience is not a
    part of it: a run that has ended can be resumed with more.

    Args:
        patience: measurements in a row without a better one after which to stop; 0 for never.
        metric: name of the figure that counts, of which more is better.

    Attributes:
        best: the highest figure so far; minus infinity before the first.
        best_step: when it was measured.
        waited: measurements since then.
    """

    def __init__(self, patience: int, metric: str):
        self.patience, self.metric = patience, metric
        self.best, self.best_step, self.waited = -math.inf, 0, 0

    def update(self, step: int, figures: dict[str, float]) -> bool:
        """Takes the measurement of a step. Returns whether it is the best so far; one that is not a number never is."""
        is_best = figures[self.metric] > self.best
        if is_best:
            self.best, self.best_step, self.waited = figures[self.metric], step, 0
        else:
            self.waited += 1
        return is_best

    @property
    def should_stop(self) -> bool:
        return 0 < self.patience <= self.waited

    def state_dict(self) -> dict[str, float | int]:
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]
