"""`evaluate(set, model, options)`: the one evaluation of the scripts, of training and from Python.

    result = evaluate(open_set("lfw", "datasets"), open_model("runs/idq"))
    result = evaluate(open_stored("scores.csv"), options=EvaluationOptions(protocols=("nist",)))

Numbers only: `report.text` prints a result, `report.results` makes its JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.features import Embeddings, Features
from estimators.base import Estimate
from evaluation.metrics.comparisons import Comparisons, Unit, image_uncertainties, rescored
from evaluation.metrics.curve import CurveEngine, ProtocolCurve, curve_of
from evaluation.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from evaluation.original import FMR_TARGETS, OriginalTable, original_table, require_pairs
from evaluation.sets.stored import StoredSet
from evaluation.sets.templates import Fusion, Score
from utils.config import require
from utils.distributed import ALONE, World
from utils.files import file_name
from utils.long_work import prefetch

if TYPE_CHECKING:
    from data.faces import Images
    from estimators.base import Estimator
    from evaluation.confidence.bootstrap import Bootstrap
    from evaluation.confidence.differentials import GroupResult
    from evaluation.confidence.risk_control import Risk, RiskControl
    from evaluation.metrics.thresholds import Caution, TarAtFar
    from evaluation.open_model import LoadedModel
    from evaluation.sets.open_set import EvaluationSet
    from utils.config import Verification

DISCARDS = (0.0, 0.05, 0.1, 0.2, 0.3)  # shares at which tables have FNMR
LARGE = 1_000_000  # comparisons from which on two protocols are evaluated at once
DRAWS = 200  # of the bootstrap, where nobody says how many
LABELLED_PROTOCOL = "iso29794"  # of whatever has no pairs that the original's table could be of

Labelled = list[tuple[str, Comparisons]]  # of each uncertainty; "" is the label of a single one


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What is computed of a set.

    Attributes:
        protocols: presets by name, or own switches; the first is the one of intervals and report.
            Empty: `pairs_protocol` for sets of pairs, iso29794 for all others.
        pairs_protocol: see `protocols`; None: "original".
        table_only: compute no more than the original's table where that is all a protocol prints.
        fmr: targets that thresholds aim at.
        sigma_sizes: columns of each uncertainty in sigma_sq; None takes all for one (two for two).
        score: of a comparison: "cosine", or "mls" for variances.
        fusion: weights within a template of an IJB set.
        batch_size: images per forward pass; None: 64.
        flip: average each image with its mirror image; None: do not.
        parts: folder in which finished parts of the embedding are kept; see `embed_images`.
        replicates: bootstrap draws for intervals; 0 for none. None: `DRAWS` where people are known,
            but none beside the original's table, under "per_subset" and where images are discarded.
        unit: what is drawn, in the bootstrap and for the risk; None for the best known one.
        confidence: of intervals and of the risk's promise.
        target_risk: find the cut-off that keeps this risk among accepted comparisons; None: do not.
        risk: which risk.
        score_threshold: of that risk, instead of the one for the first FMR target.
        groups: file that says which group each path or person is in; see `read_groupings`.
        seed: of the bootstrap and of the risk's split.
    """

    protocols: tuple[str | Protocol, ...] = ()
    pairs_protocol: str | Protocol | None = None
    table_only: bool = False
    fmr: Sequence[float] = (1e-3,)
    sigma_sizes: tuple[int, ...] | None = None
    score: Score = "cosine"
    fusion: Fusion = "mean"
    batch_size: int | None = None
    flip: bool | None = None
    parts: str | None = None
    replicates: int | None = None
    unit: Unit | None = None
    confidence: float = 0.95
    target_risk: float | None = None
    risk: Risk = "fnmr"
    score_threshold: float | None = None
    groups: str | Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        name, fmr = self.protocols, self.fmr
        require(not isinstance(name, str), "protocols", name, f"a tuple, such as ({name!r},)")
        require(not isinstance(fmr, float | str), "fmr", fmr, f"several, such as ({fmr!r},)")

    def completed(self, verification: Verification) -> EvaluationOptions:
        """Fill what is None from a run's config."""
        return dataclasses.replace(
            self,
            batch_size=self.batch_size or verification.batch_size,
            flip=verification.flip if self.flip is None else self.flip,
            pairs_protocol=self.pairs_protocol or verification.protocol,
        )

    def protocols_of(self, *, has_pairs: bool) -> tuple[Protocol, ...]:
        """Switches of the protocols for a set; ValueError for a name that is not a preset."""
        default = (self.pairs_protocol or "original") if has_pairs else LABELLED_PROTOCOL
        return tuple(
            find_protocol(protocol) if isinstance(protocol, str) else protocol
            for protocol in self.protocols or (default,)
        )


@dataclass(frozen=True)
class ProtocolRow:
    """One protocol at one target.

    Attributes:
        protocol: its switches.
        fmr_target: None where the threshold comes from a starting error.
        curve: None where the protocol cannot be applied to this set.
        reason: why it cannot; "" where it can.
    """

    protocol: Protocol
    fmr_target: float | None
    curve: ProtocolCurve | None
    reason: str = ""


@dataclass(frozen=True)
class UncertaintyResult:
    """One uncertainty of a set.

    Attributes:
        label: "" when there is only one.
        method: where the uncertainty comes from, the label with it.
        comparisons: of the set, with this uncertainty.
        rows: protocol by protocol, for each FMR target.
        draws: FMR target of a curve -> bootstrap of the first protocol; empty without.
        risk: the cut-off for a target risk; None where none was asked for.
        groups: of the first protocol, each grouping at each FMR target; empty where none are given.
    """

    label: str
    method: str
    comparisons: Comparisons
    rows: tuple[ProtocolRow, ...]
    draws: Mapping[float, Bootstrap]
    risk: RiskControl | None
    groups: tuple[GroupResult, ...] = ()

    @property
    def curves(self) -> list[ProtocolCurve]:
        """Of the first protocol, one for each FMR target."""
        first = self.rows[0].protocol
        return [row.curve for row in self.rows if row.curve and row.protocol is first]


@dataclass(frozen=True)
class EvaluationResult:
    """All numbers of one set.

    Attributes:
        name: of the set.
        options: what was asked for.
        protocols: of this set.
        original: the original's table; None under other protocols, or where there are no pairs.
        uncertainties: one entry for each; none where the original's table is all (`table_only`).
        templates: TAR at FAR of an IJB set under every fusion; empty for any other.
        images: of the set; None for stored files.
        cautions: what makes every number of the set uncertain; those of a curve or an interval are
            with it. `report.text.result_warnings` puts all of them into words.
    """

    name: str
    options: EvaluationOptions
    protocols: tuple[Protocol, ...]
    original: OriginalTable | None
    uncertainties: tuple[UncertaintyResult, ...]
    templates: Mapping[str, list[TarAtFar]] = field(default_factory=dict)
    images: Images | None = None
    cautions: tuple[Caution, ...] = ()


def evaluate(
    source: EvaluationSet | StoredSet,
    model: LoadedModel | Estimator | Estimate | None = None,
    options: EvaluationOptions | None = None,
    *,
    method: str = "",
) -> EvaluationResult:
    """Evaluate how well uncertainties predict errors.

    Args:
        source: a set of `open_set`, or stored arrays or scores of `open_stored`.
        model: of `open_model`, any estimator, or the estimate of the set's images (`embed_set`);
            None for what is stored.
        options: what is computed.
        method: what results call the model; its own name by default.

    Raises:
        ValueError: fewer than ten comparisons or those of one kind alone, an option that does not
            go with the set, or no protocol that can be applied; the message names the set.
    """
    require_set_and_model(source, model)
    options = options or EvaluationOptions()
    options.protocols_of(has_pairs=True)  # a wrong name is refused before any work
    estimate = None
    if isinstance(source, StoredSet):
        if model is not None:
            raise ValueError(f"{source.path} has its own uncertainties: no model goes with it")
        _require_variances(None, options.score)
        features = source.features
        method = method or source.path.name
    else:
        if model is None:
            raise ValueError(f"{source.name}: which model? Only stored files go without")
        estimate = model if isinstance(model, Estimate) else embed_set(source, model, options)
        features = pairs_of(source, estimate, options.score)
        method = method or method_name(model)
    protocols = options.protocols_of(has_pairs=features is not None)
    original = None
    if features is not None and len(protocols) == 1 and protocols[0].prints_original:
        original = original_table(features, protocols[0], options.sigma_sizes, source.name)
    images = None if isinstance(source, StoredSet) else source.images
    is_table = original is not None and options.table_only and not options.groups
    if is_table and isinstance(source, StoredSet):  # without the time to find out who is who
        return EvaluationResult(source.name, options, protocols, original, ())
    if isinstance(source, StoredSet):
        labelled, templates = source.comparisons(options.sigma_sizes), {}
    else:
        from evaluation.sets.ijb import IjbSet, compare_fusions

        assert estimate is not None
        labelled = _compare(source, estimate, options)
        templates = compare_fusions(source, *estimate) if isinstance(source, IjbSet) else {}
    cautions = labelled[0][1].cautions
    if is_table:
        return EvaluationResult(source.name, options, protocols, original, (), {}, images, cautions)
    needs_non_mated = any(protocol.rule != "starting_error" for protocol in protocols)
    require_pairs(source.name, labelled[0][1].mated, both=needs_non_mated)
    return EvaluationResult(
        source.name,
        options,
        protocols,
        original,
        tuple(
            _evaluate_uncertainty(
                label,
                f"{method}, {label}" if label else method,
                each,
                options,
                protocols,
                0 if original else DRAWS,
            )
            for label, each in labelled
        ),
        templates,
        images,
        cautions,
    )


def require_set_and_model(source: object, model: object) -> None:
    """Raise ValueError for what `evaluate` does not take as such; it names the argument."""
    from evaluation.open_model import LoadedModel

    is_set = hasattr(source, "comparisons")
    require(is_set, "source", source, "a set, as of open_set or open_stored")
    is_model = model is None or isinstance(model, LoadedModel | Estimate) or callable(model)
    require(is_model, "model", model, "a model, as of open_model, or an estimator or Estimate")


def embed_set(
    source: EvaluationSet,
    model: LoadedModel | Estimator,
    options: EvaluationOptions,
    *,
    about: str = "",
    world: World = ALONE,
) -> Estimate:
    """Embed the images of a set; see `embed_images`.

    Args:
        source: the set.
        model: what embeds.
        options: batch size, mirror images and parts.
        about: what the result depends on; for the parts.
        world: the ranks that share the work; each gets all of the result.
    """
    from evaluation.embed import embed_images
    from evaluation.open_model import LoadedModel

    estimator = model.estimator if isinstance(model, LoadedModel) else model
    _require_variances(estimator, options.score)
    return embed_images(
        estimator,
        source.images,
        options.batch_size or 64,
        name=source.name,
        flip=bool(options.flip),
        parts=Path(options.parts) / file_name(source.name) if options.parts else None,
        about=about,
        world=world,
    )


def method_name(model: LoadedModel | Estimator | Estimate, *, with_run: bool = True) -> str:
    """What results call a model: its method, and (`with_run`) the name of a trained one."""
    from evaluation.open_model import LoadedModel

    if not isinstance(model, LoadedModel):
        return getattr(model, "name", "")
    method, config = model.provenance.method, model.config
    run = f" ({config.name if config else model.name})"
    return f"{method}{run if with_run and method == 'trained_head' else ''}"


def pairs_of(source: EvaluationSet, estimate: Estimate, score: Score = "cosine") -> Features | None:
    """Pairs as the original's table reads them, which knows cosine scores alone; else None."""
    from evaluation.sets.open_set import PairsSet, VerificationPairs

    if score != "cosine" or not isinstance(source, VerificationPairs | PairsSet):
        return None
    if isinstance(source, PairsSet):
        rows = source.pairs.ravel()
        return Features(estimate.mu[rows], estimate.sigma_sq[rows], source.mated)
    return Features(estimate.mu, estimate.sigma_sq, source.images.mated)


def save_features(path: Path, source: EvaluationSet, estimate: Estimate) -> None:
    """Write what `open_stored` reads again: pairs, or embeddings with identities.

    Raises:
        ValueError: the set has neither.
    """
    from evaluation.sets.open_set import LabelledSet

    features = pairs_of(source, estimate)
    if features is not None:
        features.save(path)
        return
    if not isinstance(source, LabelledSet):
        raise ValueError(
            f"--save_features: {source.name} has neither pairs nor labelled faces; "
            "--save_scores writes its scores"
        )
    names = np.array([source.images.image_name(row) for row in range(len(source.images))])
    Embeddings(estimate.mu, estimate.sigma_sq, source.labels, names).save(path)


def protocol_rows(
    comparisons: Comparisons,
    protocols: Iterable[Protocol] = tuple(PROTOCOLS.values()),
    fmr_targets: Sequence[float] = FMR_TARGETS,
) -> tuple[ProtocolRow, ...]:
    """Evaluate one set of scored comparisons under every protocol.

    A protocol that cannot be applied keeps its row, which says why.

    Args:
        comparisons: scored, of both kinds.
        protocols: all presets, or some switches of one's own.
        fmr_targets: of the thresholds; protocols with a starting error have one row.

    Raises:
        ValueError: no protocol or no target is given, or none can be applied.
    """

    def rows_of(protocol: Protocol) -> list[ProtocolRow]:
        rows, engine = [], None
        for target in (None,) if protocol.rule == "starting_error" else fmr_targets:
            try:
                engine = engine or CurveEngine(comparisons, protocol)
                curve = curve_of(engine, 1e-3 if target is None else target)
            except ValueError as error:  # said in the row, and raised if none can be applied
                rows.append(ProtocolRow(protocol, target, None, str(error)))
            else:
                rows.append(ProtocolRow(protocol, target, curve))
        return rows

    threads = 2 if len(comparisons.scores) >= LARGE else 1
    rows = [row for rows in prefetch(rows_of, protocols, threads, threads) for row in rows]
    if not rows:
        raise ValueError(f"{comparisons.name}: give one protocol and one FMR target at least")
    if all(row.curve is None for row in rows):
        raise ValueError(rows[0].reason)
    return tuple(rows)


def show_draws(draws: Iterable[int]) -> Iterator[int]:
    """Show a bar of bootstrap draws on a terminal."""
    from tqdm import tqdm

    bar: Iterator[int] = iter(tqdm(draws, desc="bootstrap", leave=False, disable=None))
    return bar


def _require_variances(estimator: object, score: Score) -> None:
    if score == "mls" and not getattr(estimator, "gives_variances", False):
        raise ValueError(
            "--score mls needs a variance of each image: a head trained with the loss fast_mls or "
            "mls, and its images, not stored files"
        )


def _compare(source: EvaluationSet, estimate: Estimate, options: EvaluationOptions) -> Labelled:
    from evaluation.sets.ijb import IjbSet

    is_ijb = isinstance(source, IjbSet)
    if isinstance(source, IjbSet):
        source = dataclasses.replace(source, weights=options.fusion, score=options.score)
    try:
        uncertainties = image_uncertainties(estimate.sigma_sq, options.sigma_sizes)
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from error
    labelled: Labelled = []
    for uncertainty in uncertainties:
        if not labelled or is_ijb:  # templates are fused anew
            comparisons = source.comparisons(estimate.mu, uncertainty.values[:, None])
        else:
            comparisons = labelled[0][1].with_uncertainty(uncertainty.values)
        if options.score == "mls" and not is_ijb:
            comparisons = rescored(comparisons, estimate.mu, estimate.sigma_sq)
        labelled.append((uncertainty.label, comparisons))
    return labelled


def _evaluate_uncertainty(
    label: str,
    method: str,
    comparisons: Comparisons,
    options: EvaluationOptions,
    protocols: Sequence[Protocol],
    default_draws: int,
) -> UncertaintyResult:
    first = protocols[0]
    draws: dict[float, Bootstrap] = {}
    rows = protocol_rows(comparisons, protocols, options.fmr)
    replicates, is_default = options.replicates, options.replicates is None
    if replicates is None:
        is_fast = first.threshold == "fixed" and first.discard_over != "images"
        replicates = default_draws if is_fast and comparisons.identity is not None else 0
    if replicates:
        from evaluation.confidence.bootstrap import bootstrap

        # a starting error has a target of its own, and needs no more than one
        own = (row.curve for row in rows if row.protocol is first)
        for curve, fmr in zip(own, options.fmr, strict=False):
            if is_default and not (curve and curve.start.errors):
                continue  # a rate without errors has no spread to draw
            of_target = bootstrap(
                comparisons,
                {method: comparisons.uncertainty},
                first,
                fmr,
                unit=options.unit,
                replicates=replicates,
                confidence=options.confidence,
                seed=options.seed,
                progress=show_draws,
            )
            draws[of_target.curves[method].edc.fmr_target] = of_target
    risk = None
    if options.target_risk is not None:
        from evaluation.confidence.risk_control import control_risk

        risk = control_risk(
            comparisons,
            target_risk=options.target_risk,
            risk=options.risk,
            confidence=options.confidence,
            fmr_target=options.fmr[0] if options.score_threshold is None else None,
            score_threshold=options.score_threshold,
            unit=options.unit,
            fuse=first.fuse,
            seed=options.seed,
        )
    groups: list[GroupResult] = []
    if options.groups:
        from evaluation.confidence.differentials import group_results
        from evaluation.sets.groups import read_groupings

        groupings = read_groupings(options.groups, comparisons)
        for fmr in options.fmr[: 1 if first.rule == "starting_error" else None]:
            groups += group_results(
                comparisons,
                groupings,
                first,
                fmr,
                unit=options.unit,
                replicates=DRAWS if is_default else replicates,
                confidence=options.confidence,
                seed=options.seed,
                progress=show_draws,
            )
    return UncertaintyResult(label, method, comparisons, rows, draws, risk, tuple(groups))
