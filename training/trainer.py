"""The loop: batches through the frozen backbone, then a step of every head on what it gave.

One process or many: each takes whole identities of every batch. The file reads from the top down: a
run, its loop, what happens after an epoch, one step, and what is logged of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from data.augment import AugmentParameters, BatchAugment
from data.faces import open_faces
from data.images import SIZE
from data.loader import Batch, BatchLoader, ClassBalancedBatches, RankShare, Sampler
from data.verification import open_verification
from estimators.trained_head import TrainedHead
from evaluation.embed import embed_pairs
from evaluation.original import OriginalTable, original_table
from losses.base import LossResult, genuine_pairs
from models.backbones.base import BackboneOutput
from models.frozen import CudaGraphs
from models.heads.base import to_scalar, to_sigma_sq
from models.load import Checkpoint
from models.run import backbone_record, check_backbone, load_frozen
from training.branch import StepInput, TrainedBranch
from training.centres import FILE_NAME, ClassCentres, classifier_centres, mean_centres
from training.checkpoints import RunFiles, check_resumable, is_judged_alike
from training.log import TrainLog, log_start, rank_correlation
from training.teachers import Teacher, logit_of, open_teachers
from utils.config import TrainConfig
from utils.device import peak_memory_gib, to_device
from utils.distributed import ALONE, World
from utils.files import DAMAGE, naming
from utils.long_work import StopRequest
from utils.run import LOGGER

SECONDS_BETWEEN_SAVES = 60.0
IMAGES_PER_FORWARD = 512  # on an accelerator, unless the config says how many steps go together
MOST_RECORDINGS = 8  # one for each number of pairs; classes with few images make it vary


class SharedError(ValueError):
    """A mistake that all processes of a job raise together, so that one of them may report it."""


class Trainer:
    """One run: what is trained, on what, and how far it has come.

    Everything that the config names is opened here, so that a mistake shows before any work.

    The checkpoint is what `last.pt` holds, to resume from; it may come from another number of
    processes. Without a device the process takes the config's.

    Raises:
        ValueError: a name, option or file of the config that does not exist or does not fit.
    """

    def __init__(
        self,
        config: TrainConfig,
        checkpoint: Checkpoint | None = None,
        world: World = ALONE,
        device: torch.device | None = None,
    ) -> None:
        if checkpoint is not None:
            check_resumable(config, checkpoint)
        self.config, self.world = config, world
        self.frozen = load_frozen(
            config, str(device or config.device), config.precision, execution=config.execution
        )
        self.backbone = backbone_record(self.frozen, config.backbone_weights)
        if checkpoint is not None:
            check_backbone(checkpoint, self.frozen, config.backbone_weights)
        self.branches = [
            TrainedBranch(name, branch, self.frozen, world, _branch_state(checkpoint, name))
            for name, branch in config.heads.items()
        ]
        if checkpoint is not None and not is_judged_alike(config, checkpoint):
            for branch in self.branches:
                branch.best = None
        self.augment = BatchAugment(config.augment, config.seed)
        self.verification = [
            open_verification(target, config.verification.dataset_path)
            for target in config.verification.targets
        ]
        self.faces = open_faces(config.train_images)
        self.teachers = open_teachers(config, self.frozen, self.faces, self.augment)
        self.centres = self._classifier()
        self.sampler = ClassBalancedBatches(
            self.faces.labels, config.classes_per_batch, config.images_per_class, config.seed
        )
        self.rank_share = RankShare(self.sampler, world.rank, world.size)
        self.step = 0 if checkpoint is None else int(checkpoint["step"])
        self.stop = StopRequest(second_interrupts=world.size == 1)
        self._bad_images: list[str] = []
        self._unchecked = torch.zeros(len(self.branches), device=self.frozen.device)
        self._saved_at = time.monotonic()
        self._steps_here = 0
        self._recorded: RecordedSteps | None = None

    @property
    def batch_size(self) -> int:
        """Images of one step in this process."""
        return self.config.classes_per_batch // self.world.size * self.config.images_per_class

    @property
    def steps_per_forward(self) -> int:
        """Steps whose images go through the backbone together."""
        if self.config.steps_per_forward is not None:
            return self.config.steps_per_forward
        if self.frozen.device.type == "cpu":
            return 1
        return max(1, IMAGES_PER_FORWARD // self.batch_size)

    def run(self, folder: Path) -> None:
        """Train from the current step to the end, or until a stop is requested.

        The first process writes log, metrics, curves and checkpoints into the folder, which exists.
        """
        self.files = RunFiles(folder, self.config, self.backbone, self.branches)
        self.centres = self.centres_in(folder)
        steps = range(self.step, self.config.schedule.total_steps)
        loader = self._loader(self.rank_share, steps, self.steps_per_forward)
        with ExitStack() as stack:
            logs = self._start_logs(stack) if self.world.is_main else []
            stack.enter_context(self.stop)
            batches = stack.enter_context(closing(iter(loader)))
            bar = stack.enter_context(self._progress())
            self._loop(batches, logs, bar)
            self._save()
            if self.world.is_main:
                self.files.save_branches(self.step)

    @property
    def _needs_centres(self) -> bool:
        return any(branch.loss.needs_centres for branch in self.branches)

    def centres_in(self, folder: Path) -> ClassCentres | None:
        """Return the centres, if a loss needs them: a classifier's, or means kept in the folder."""
        if self.centres is not None or not self._needs_centres:
            return self.centres
        size = self.batch_size * self.steps_per_forward
        file = folder / FILE_NAME
        return mean_centres(self.faces, self.frozen, self._loader, size, file, self.world)

    def _classifier(self) -> ClassCentres | None:
        files = self.config.centres
        if files is None:
            return None
        if not self._needs_centres:
            raise ValueError(f"centres = {files!r}: no loss of this config has a use for them")
        files = (files,) if isinstance(files, str) else files
        return classifier_centres(files, self.faces, self.frozen)

    def _loader(self, sampler: Sampler, steps: range, together: int = 1) -> BatchLoader:
        return BatchLoader(
            self.faces,
            sampler,
            steps,
            workers=self.config.workers,
            max_bad_share=self.config.max_bad_share,
            on_bad=self._on_bad_image,
            steps_per_batch=together,
            pin=self.frozen.device.type == "cuda",
            replace_bad=sampler is self.rank_share,
        )

    def _loop(self, batches: Iterator[Batch], logs: list[TrainLog], bar: tqdm[Any]) -> None:
        if self.step == 0:
            self._save()
        for branch in self.branches:
            branch.head.train()
        for batch in batches:
            if self.world.is_main:
                self.faces.sizes.warn("train_images")
            inputs = step_inputs(batch, self.forward(batch), self.teachers, self.centres)
            for images in inputs:
                stop_wish = self.train_step(images, logs)
                bar.update()
                if self._stops(stop_wish):
                    self._check_finite()
                    self._log_bad_images()
                    return

    def forward(self, batch: Batch) -> BackboneOutput:
        """Augment the images of one or several steps and embed them; keep them if a head reads."""
        steps = zip(batch.steps, np.split(batch.rows, len(batch.steps)), strict=True)
        parameters = [self.augment.parameters(step, rows) for step, rows in steps]
        images = batch.images.to(self.frozen.device, non_blocking=True)
        output = self.frozen(self.augment(images, AugmentParameters.concatenate(parameters)))
        reads_images = any(branch.head.reads == "images" for branch in self.branches)
        return output if reads_images else output._replace(images=None)

    def train_step(self, images: StepInput, logs: list[TrainLog]) -> Tensor | None:
        """Do one optimizer step of every head, and what is due after it.

        There is a log for each branch, and none where another process writes them.

        Returns:
            Above 0 where any process was asked to stop; read it only where waiting is cheap. None
            after a recorded step, of one process, which knows by itself.
        """
        at_log = (self.step + 1) % self.config.log_every == 0
        losses = None if at_log else self._recorded_step(images)
        result = None
        if losses is None:
            result = step_heads(
                self.branches, self.step, images, self.world, at_log, self.stop.is_requested
            )
            losses = result.losses
        self._unchecked += losses
        self._steps_here += 1
        self.step += 1
        self._after_step(result, images, logs)
        return None if result is None else result.stop_wish

    def _recorded_step(self, images: StepInput) -> Tensor | None:
        """Do a step as a recording of an earlier one, where that is requested and possible."""
        is_possible = self._steps_here > 0 and self.world.size == 1
        draws = any(branch.draws for branch in self.branches)
        if self.config.execution != "cuda_graph" or not is_possible or draws:
            return None
        if self._recorded is None:
            self._recorded = RecordedSteps(self.branches, self.frozen.device)
        return self._recorded(self.step, images)

    def _after_step(
        self, result: HeadsStep | None, images: StepInput, logs: list[TrainLog]
    ) -> None:
        at_log = self.step % self.config.log_every == 0
        at_epoch = self.step % self.config.schedule.steps_per_epoch == 0
        if at_log or at_epoch:
            self._check_finite()
            self._log_bad_images()
        if at_log and result is not None:
            log_step(self.step, self.branches, result, images, logs, self.world)
        if at_epoch:
            self._finish_epoch(logs)
        if at_epoch or (at_log and time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES):
            self._save()

    def _stops(self, stop_wish: Tensor | None) -> bool:
        """Whether all processes stop here; on a GPU several look only where they wait anyway."""
        if stop_wish is None or self.world.size == 1:
            return self.stop.is_requested
        waits = self.step % self.config.log_every == 0 or self.frozen.device.type == "cpu"
        return waits and float(stop_wish) > 0

    def _check_finite(self) -> None:
        self.world.barrier()  # on the host, where a process that is lost shows at once
        self.world.sum_(self._unchecked)
        finite = torch.isfinite(self._unchecked).tolist()
        self._unchecked.zero_()
        for branch, is_finite in zip(self.branches, finite, strict=True):
            if not is_finite:
                first = max(0, self.step - self.config.log_every) + 1
                whose = f" of branch {branch.name}" if branch.name else ""
                face = torch.arange(3 * SIZE * SIZE).view(1, SIZE, SIZE, 3).to(torch.uint8)
                is_sound = self.frozen(face).embedding.isfinite().all()
                lower = f"lower schedule.lr ({branch.config.schedule.lr:g})"
                raise SharedError(
                    f"the loss{whose} is not finite at some step in {first}..{self.step}; "
                    + (lower if is_sound else "the backbone itself gives NaN or infinite values")
                )

    def _finish_epoch(self, logs: list[TrainLog]) -> None:
        results_of = self._verify()
        if not self.world.is_main:
            return
        for branch, results, log in zip(self.branches, results_of, logs, strict=True):
            for table in results:
                log.evaluation(self.step, table)
            score = mean_area(results)
            if score is None or branch.best is None or score < branch.best:
                branch.best = score
                self.files.save_best(branch, self.step)
            log.draw()
        self.files.save_branches(self.step)

    def _verify(self) -> list[list[OriginalTable]]:
        """Evaluate each head on each verification set, in the first process; none in the others.

        Every image goes through the backbone once for all heads, on one of the processes.
        """
        heads = [TrainedHead(frozen=self.frozen, head=branch.head) for branch in self.branches]
        results: list[list[OriginalTable]] = [[] for _ in self.branches]
        options = self.config.verification
        for pairs in self.verification:
            features = embed_pairs(
                heads, pairs, options.batch_size, flip=options.flip, world=self.world
            )
            for own, of_head in zip(results, features, strict=True) if self.world.is_main else ():
                own.append(original_table(of_head, options.protocol, name=pairs.name))
        return results

    def _save(self) -> None:
        if self.world.is_main:
            self.files.save(self.step)
        self._saved_at = time.monotonic()

    def _start_logs(self, stack: ExitStack) -> list[TrainLog]:
        summaries = {branch.name: branch.loss.summary for branch in self.branches}
        left_out = self.sampler.num_left_out_classes
        log_start(self.config, summaries, self.faces, left_out, self.step)
        return self.files.open_logs(self.step, stack)

    def _progress(self) -> tqdm[Any]:
        return tqdm(
            total=self.config.schedule.total_steps,
            initial=self.step,
            unit="step",
            disable=not (self.world.is_main and sys.stderr.isatty()),
            dynamic_ncols=True,
        )

    def _on_bad_image(self, text: str) -> None:
        if self.world.is_main:
            LOGGER.warning("skipped: %s", text)
        else:
            self._bad_images.append(text)

    def _log_bad_images(self) -> None:
        """Log the images that other processes could not read since the last time."""
        unreported, self._bad_images = self._bad_images, []
        for texts in self.world.gather(unreported):
            for text in texts:
                LOGGER.warning("skipped: %s", text)


def step_inputs(
    batch: Batch,
    output: BackboneOutput,
    teachers: Mapping[str, Teacher] | None = None,
    centres: ClassCentres | None = None,
) -> Iterator[StepInput]:
    """Cut a batch and what the backbone gave for it into its steps, in order.

    `teachers` are those outside the run, by name; `centres` are there for losses that need them.
    """
    device = output.embedding.device
    rows_of, labels_of = (np.split(array, len(batch.steps)) for array in (batch.rows, batch.labels))
    size = len(batch.rows) // len(batch.steps)
    for place, (step, rows, labels) in enumerate(zip(batch.steps, rows_of, labels_of, strict=True)):
        part = output.map(lambda values, at=place * size: values[at : at + size])  # type: ignore[misc]
        first, second = genuine_pairs(torch.from_numpy(labels), torch.from_numpy(rows))
        yield StepInput(
            rows,
            labels,
            part,
            to_device(labels, device),
            (to_device(first.numpy(), device), to_device(second.numpy(), device)),
            len(first),
            {name: teacher(step, rows, part) for name, teacher in (teachers or {}).items()},
            None if centres is None else centres(rows, labels),
        )


class HeadsStep(NamedTuple):
    """What a step left.

    Attributes:
        rates: learning rate of each head.
        raws: what each head gave, (B, d).
        results: of each loss.
        stop_wish: above 0 where any process was asked to stop, on the device.
    """

    rates: list[float]
    raws: list[Tensor]
    results: list[LossResult]
    stop_wish: Tensor

    @property
    def losses(self) -> Tensor:
        """(H,) of the heads."""
        return torch.stack([result.loss.detach() for result in self.results])


def step_heads(
    branches: Sequence[TrainedBranch],
    step: int,
    images: StepInput,
    world: World,
    with_stats: bool = False,
    stop: bool = False,
) -> HeadsStep:
    """Do a step of every head; all gradients are there before any weight moves.

    A loss is a mean over pairs, and processes may have different numbers of them: each
    differentiates its sum, and `share_gradients` divides by the number of all pairs.
    """
    teaching = {branch.config.teacher for branch in branches}
    taught, raws, results = dict(images.taught), [], []
    for branch in branches:  # a branch comes after the one that teaches it
        teacher = branch.config.teacher
        raw, result = branch.forward(
            step, images, with_stats, None if teacher is None else taught[teacher]
        )
        if branch.name in teaching:
            taught[branch.name] = logit_of(raw, branch.head.output)
        loss = result.loss if world.size == 1 else result.loss * images.num_pairs
        loss.backward()  # at once: what it keeps of the features is freed before the next head's
        raws.append(raw.detach())
        results.append(result)
    parameters = [weight for branch in branches for weight in branch.parameters]
    stop_wish = share_gradients(parameters, images.num_pairs, stop, world)
    rates = [branch.update(step) for branch in branches]
    return HeadsStep(rates, raws, results, stop_wish)


class RecordedSteps:
    """Steps of all heads as one launch, for a host that cannot keep up with a hundred kernels each.

    A recording, a CUDA graph, holds for one number of pairs and one set of learning rates. Heads
    with dropout, and batches that several processes share, cannot be recorded. Each of the
    `branches` has taken a step before, so that its optimizer has its state.
    """

    def __init__(self, branches: Sequence[TrainedBranch], device: torch.device) -> None:
        self._branches, self._graphs = branches, CudaGraphs(device)
        self._rates: list[float] = []
        self._recordings: dict[int, tuple[StepInput, Callable[[], None], Tensor]] = {}

    def __call__(self, step: int, images: StepInput) -> Tensor | None:
        """Do a step; return the losses (H,), good until the next one, or None where it cannot."""
        rates = [branch.config.schedule.lr_at(step) for branch in self._branches]
        if rates != self._rates:
            self._rates, self._recordings = rates, {}
        if images.num_pairs not in self._recordings:
            if len(self._recordings) == MOST_RECORDINGS:
                return None
            own = images.clone()
            recording = self._graphs.capture(
                lambda: step_heads(self._branches, step, own, ALONE).losses, warm_up=0
            )
            self._recordings[images.num_pairs] = (own, *recording)
        recorded, replay, losses = self._recordings[images.num_pairs]
        for place, new in zip(recorded.tensors, images.tensors, strict=True):
            place.copy_(new, non_blocking=True)
        replay()
        return losses


def share_gradients(
    parameters: Sequence[nn.Parameter], num_pairs: int, stop: bool, world: World
) -> Tensor:
    """Make gradients of the sum over this process's pairs those of the mean of the whole batch.

    All gradients go in one flat buffer, with the number of pairs and the wish to stop at its end;
    nothing is changed before it has arrived, so a process that is lost here leaves a whole state.

    Returns:
        A scalar on the device, above 0 where any process was asked to stop.
    """
    if world.size == 1:
        return torch.tensor(float(stop))
    grads = [weight.grad.flatten() for weight in parameters if weight.grad is not None]
    tail = to_device(np.array([num_pairs, stop], np.float32), parameters[0].device)
    flat = torch.cat([*grads, tail])
    world.sum_(flat)
    count, stop_wish = flat[-2], flat[-1]
    flat = flat[:-2] / count
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, flat.split(sizes), strict=True):
        parameter.grad = part.view_as(parameter)
    return stop_wish


class _BranchPart(NamedTuple):
    """What one process knows of one head's step."""

    loss: float
    stats: dict[str, NDArray[np.float32]]
    raw: NDArray[np.float32]


def log_step(
    step: int,
    branches: Sequence[TrainedBranch],
    result: HeadsStep,
    images: StepInput,
    logs: list[TrainLog],
    world: World,
) -> None:
    """Write the line of every head, from the numbers of all processes; waits for the device.

    All processes must call; there are no logs where another one writes them.
    """
    mu = F.normalize(images.output.embedding).cpu().numpy()
    parts = [
        _BranchPart(
            float(loss.loss.detach()),
            {name: value.cpu().numpy() for name, value in loss.stats.items()},
            raw.cpu().numpy(),
        )
        for raw, loss in zip(result.raws, result.results, strict=True)
    ]
    gathered = world.gather((mu, images.rows, images.labels, parts))
    if not logs:
        return
    mus, rows, labels, parts_of = zip(*gathered, strict=True)
    _, distinct = np.unique(np.concatenate(rows), return_index=True)  # copies are not a pair
    embeddings = torch.from_numpy(np.concatenate(mus)[distinct])
    identities = torch.from_numpy(np.concatenate(labels)[distinct])
    for place, (branch, rate, log) in enumerate(zip(branches, result.rates, logs, strict=True)):
        loss, stats, raw = _join([parts[place] for parts in parts_of])
        uncertainty = to_scalar(to_sigma_sq(raw, branch.head.output))
        log.step(
            step,
            rate,
            loss,
            stats,
            peak_memory_gib(images.output.embedding.device),
            rank_correlation(uncertainty[distinct], embeddings, identities),
            uncertainty,
        )


def _join(parts: Sequence[_BranchPart]) -> tuple[float, dict[str, Tensor], Tensor]:
    """Return the loss, the statistics and the raw output of the whole batch."""
    weights = [len(part.stats["cos"]) for part in parts]
    stats = {}
    for name, value in parts[0].stats.items():
        values = [part.stats[name] for part in parts]
        whole = np.average(values, weights=weights) if value.ndim == 0 else np.concatenate(values)
        stats[name] = torch.from_numpy(np.asarray(whole, dtype=value.dtype))
    loss = float(np.average([part.loss for part in parts], weights=weights))
    return loss, stats, torch.from_numpy(np.concatenate([part.raw for part in parts]))


def mean_area(results: Sequence[OriginalTable]) -> float | None:
    """Return the mean AUERC30 over sets, which the best checkpoint is chosen by; None without."""
    areas = [result.blocks[0].areas.auerc30 for result in results]
    return sum(areas) / len(areas) if areas else None


def _branch_state(checkpoint: Checkpoint | None, name: str) -> Checkpoint | None:
    if checkpoint is None or not name:
        return checkpoint
    with naming("last.pt", *DAMAGE):
        return dict(checkpoint["branches"][name])
