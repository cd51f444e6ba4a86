"""The steps of a run, with its log, its measurements and its checkpoints."""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from .batches import Batch, IndexedBatches, StreamedBatches
from .config import TrainingConfig
from .early_stopping import EarlyStopping
from .features.encoding import CachedFeatures, Encoder
from .processes.agreement import first_failure
from .processes.fsdp import make_whole, whole_weights
from .processes.interruption import Interrupted, Interruption
from .records import log as run_log
from .records.best_weights import BestWeights
from .records.checkpoint_files import step_of
from .records.checkpointing import load_checkpoint, register_checkpoint_hooks, save_checkpoint
from .records.curves import draw_curves
from .records.run_folder import check_resume
from .records.settings import settings
from .samples.images import PairSamples, TripletSamples
from .samples.streams import StreamedSamples
from .steps.step import TrainingStep
from .tasks.stages import ComposingTask, MappingTask
from .validation import Validation


# After so many skipped steps in a row a run has no future.
MAX_SKIPPED = 20

CURVES = "learning_curves.png"
# Drawing takes half a second, which is not to be felt.
SECONDS_BETWEEN_DRAWINGS = 60


class TrainingLoop:
    """Takes a task from its first step, or from a checkpoint, to its last.

    Args:
        config: of the run.
        accelerator: of the run.
        task: what is trained; in place.
        data: the rows to train on.
        validation: what to measure.
        checkpoint: where to go on from; `None` to begin.
        identity: of the run; see [`identity_of`].

    Attributes:
        step: steps that lie behind.
        figures: of the last measurement; at the end of a run with early stopping, of the best.

    Raises:
        ValueError: if there are less rows than a batch has, or the checkpoint cannot be read, or is of another run.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Accelerator,
        task: MappingTask | ComposingTask,
        data: PairSamples | TripletSamples | StreamedSamples | CachedFeatures,
        validation: Validation,
        checkpoint: Path | None,
        identity: dict[str, str | None],
    ):
        self.config, self.accelerator, self.validation = config, accelerator, validation
        self.batches = (StreamedBatches if config.streaming else IndexedBatches)(data, config, accelerator)
        encode = None if isinstance(data, CachedFeatures) else Encoder(config, data.processor)
        self.training = TrainingStep(config, accelerator, task, encode)
        self.stopping = EarlyStopping(config.early_stopping, validation.metric)
        self.best = BestWeights(accelerator, task)
        register_checkpoint_hooks(accelerator)
        self.checkpoint, self.identity, self.step, self.figures = checkpoint, identity, 0, {}
        self.started = self.drawn = time.time()
        if checkpoint is not None:
            self._restore(checkpoint)

    def run(self, interruption: Interruption) -> None:
        """Takes the steps that are left.

        Args:
            interruption: entered; what it has noted ends the run after the step that is being taken.

        Raises:
            Interrupted: on every process, if one of them was asked to end; a checkpoint of the last step is there then.
            Exception: on every process, if one of them cannot read its rows; a checkpoint of the last step is there then.
            ValueError: if the gradient is not finite in many steps in a row.
            OSError: if the log or a checkpoint cannot be written.
        """
        with self._bar() as bar:
            batches = islice(self.batches.since(self.step), self.config.max_steps - self.step)
            while not self.stopping.should_stop and (batch := self._next(batches, interruption)) is not None:
                terms, is_finite = self.training.take(self.step, batch)
                self.step += 1
                bar.update()
                self._after_step(terms, is_finite, bar)
                if self._is_due(self.config.checkpoint_steps):
                    self._save()
                if time.time() - self.drawn > SECONDS_BETWEEN_DRAWINGS:
                    self._draw()
        make_whole(self.training.task)
        if self.config.early_stopping:
            self.figures = self.best.put_back() or self.figures
        self._draw()

    def _next(self, batches: Iterator[Batch], interruption: Interruption) -> Batch | None:
        """The next batch, if there is one. All processes get theirs, or all save the last step and end."""
        batch = failure = None
        try:
            batch = next(batches, None)
        except Exception as error:
            failure = error
        signal_number, has_failed = interruption.agreed(failure is not None)
        if signal_number or has_failed:
            self._save_if_new()
        if has_failed:
            if self.accelerator.is_main_process:
                run_log.warn(
                    f"no batch could be read after step {self.step}; once that is mended, go on from there with --resume"
                )
            message = first_failure(failure)
            raise failure or ValueError(message)
        if signal_number:
            where = f"at step {self.step}, which is saved" if self.step else "before the first step"
            raise Interrupted(signal_number, f"ended {where}; go on with --resume")
        return batch

    def _bar(self) -> tqdm:
        title, is_silent = f"stage {self.config.stage}", not self.accelerator.is_main_process
        return tqdm(total=self.config.max_steps, initial=self.step, desc=title, disable=is_silent)

    def _after_step(self, terms: dict[str, torch.Tensor], is_finite: bool, bar: tqdm) -> None:
        if not is_finite or self._is_due(self.config.log_steps):
            losses = {name: self.accelerator.reduce(value.detach(), "mean").item() for name, value in terms.items()}
            rate, seconds = self.training.schedule.get_last_lr()[0], round(time.time() - self.started, 1)
            self._log({**losses, "learning_rate": rate, "seconds": seconds})
            bar.set_postfix(loss=f"{losses['loss']:.3f}")
        if not is_finite:
            self._report_skip()
        if self.validation.metric is not None and self._is_due(self.config.eval_steps):
            with whole_weights(self.training.task):
                self._measure()

    def _measure(self) -> None:
        self.figures = self.validation.measure()
        self._log(self.figures)
        if self.stopping.update(self.step, self.figures) and self.config.early_stopping:
            self.best.keep(self.figures)

    def _is_due(self, every: int) -> bool:
        """Whether to do what is done `every` so many steps, and at the end; 0 for never."""
        is_last = self.step == self.config.max_steps or self.stopping.should_stop
        return every > 0 and (is_last or self.step % every == 0)

    def _report_skip(self) -> None:
        skipped = self.training.updates.skipped
        if skipped and self.accelerator.is_main_process:  # none while fp16 looks for its scale
            run_log.warn(f"step {self.step}: the gradient is not finite, and the weights stay as they were")
        if skipped >= MAX_SKIPPED:
            kept = "no checkpoint was written" if self.checkpoint is None else f"the last checkpoint is {self.checkpoint}"
            raise ValueError(
                f"the gradient was not finite in the last {skipped} steps, up to step {self.step}; {kept}. Try a lower "
                "--learning_rate or another --mixed_precision, and look for rows that are not like the others"
            )

    def _log(self, figures: dict[str, float]) -> None:
        self.accelerator.log(figures, step=self.step)
        if self.accelerator.is_main_process:
            run_log.append(self.config.output_dir, {"step": self.step, **figures})

    def _save_if_new(self) -> None:
        if self.step > 0 and (self.checkpoint is None or step_of(self.checkpoint) < self.step):
            self._save()

    def _save(self) -> None:
        progress = {
            "step": self.step,
            "rows": self.batches.num_rows,
            "seconds": time.time() - self.started,
            "figures": self.figures,
            "training": self.training.state_dict(),
            "stopping": self.stopping.state_dict(),
            "settings": settings(self.config, self.accelerator.num_processes),
            "identity": self.identity,
        }
        with self.training.whole():
            self.checkpoint = save_checkpoint(self.accelerator, self.config.output_dir, progress, self.config.keep_checkpoints)

    def _restore(self, checkpoint: Path) -> None:
        check_resume(checkpoint, self.batches.num_rows, self.identity)
        with self.training.whole():
            progress = load_checkpoint(self.accelerator, checkpoint)
        self.step, self.figures = progress["step"], progress["figures"]
        self.started -= progress["seconds"]
        self.training.load_state_dict(progress["training"])
        self.stopping.load_state_dict(progress["stopping"])

    def _draw(self) -> None:
        """The log as a picture. A run is not to end for it."""
        self.drawn = time.time()
        if self.accelerator.is_main_process:
            try:
                draw_curves(Path(self.config.output_dir, run_log.LOG), Path(self.config.output_dir, CURVES))
            except OSError as error:
                run_log.warn(f"{CURVES} could not be drawn: {error}")
