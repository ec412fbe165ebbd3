"""``Engine``: a model on the fastest provider that is there and that computes it correctly."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from duotrack.engine import proof
from duotrack.engine.models import ModelFolder, open_model
from duotrack.engine.providers import (
    PROVIDERS,
    Arrays,
    EngineReport,
    Graph,
    Opened,
    Precision,
    ProviderUnavailableError,
    default_threads,
    require_provider,
)
from duotrack.errors import ModelError
from duotrack.network import ModelSpec, Prediction, Template

logger = logging.getLogger(__name__)


class Engine:
    """A loaded model, ready to be shared by any number of trackers and threads. Implements ``Network``."""

    def __init__(self, folder: ModelFolder, opened: Opened) -> None:
        self._spec = folder.spec
        self._template: Graph = opened.load(folder.template_graph)
        self._search: Graph = opened.load(folder.search_graph)
        self._report: EngineReport | None = None

    @classmethod
    def open(
        cls,
        model: str | Path | None = None,
        *,
        provider: str | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
        streams: int = 1,
    ) -> Self:
        """Load a model on ``provider``, or on the first of ``PROVIDERS`` that can run it and passes its proof.

        Args:
            precision: insist on ``fp32`` or ``bf16``; by default bf16 where the CPU has it and the provider offers it.
            threads: inference threads, by default one for each core; no fewer than ``streams``.
            streams: how many threads may call ``search`` and ``encode`` at once without waiting for one another.

        Raises:
            ModelError: the model is missing or damaged, the provider is not known, cannot run here or computes wrongly.
        """
        folder = open_model(model)
        if provider is not None:
            require_provider(provider)
        if threads is not None and threads < 1:
            raise ModelError(f"threads must be at least 1, got {threads}")
        if streams < 1:
            raise ModelError(f"streams must be at least 1, got {streams}")
        count = max(threads or default_threads(), streams)
        skipped: dict[str, str] = {}
        for name in [provider] if provider is not None else PROVIDERS:
            try:
                opened = PROVIDERS[name](count, streams, precision)
                engine = cls(folder, opened)
                engine._prove(folder, opened.precision)
            except ProviderUnavailableError as reason:
                skipped[name] = str(reason)
            except Exception as error:  # a provider may fail with any type while it compiles a graph
                logger.warning("provider %s failed to load %s: %s", name, folder.spec.name, error)
                skipped[name] = f"failed to load the model: {error}"
            else:
                engine._report = EngineReport(
                    model=folder.spec.name,
                    provider=name,
                    runtime=opened.runtime,
                    precision=folder.arithmetic or opened.precision,
                    threads=count,
                    streams=streams,
                    assignment=engine._search.assignment(),
                    skipped=skipped,
                )
                return engine
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ModelError(f"no provider can run {folder.spec.name}: {reasons}")

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    @property
    def report(self) -> EngineReport:
        """What really runs."""
        assert self._report is not None
        return self._report

    def encode(self, template: Template) -> NDArray[np.float32]:
        inputs: Arrays = {"template": template.crop, "present": template.present, "box": template.box}
        return self._template.run(inputs)["features"]

    def search(
        self, crop: NDArray[np.uint8], present: NDArray[np.float32], features: NDArray[np.float32]
    ) -> Prediction:
        outputs = self._search.run({"search": crop, "present": present, "features": features})
        return Prediction(outputs["score_map"], outputs["box_map"], outputs["presence"])

    def _prove(self, folder: ModelFolder, precision: Precision) -> None:
        template, crop, present = proof.proof_input(self._spec)
        error = proof.largest_error(lambda: self.search(crop, present, self.encode(template)), folder.check)
        allowed = proof.TOLERANCE[precision] + folder.tolerance
        if error > allowed:
            raise ProviderUnavailableError(
                f"it computes wrongly: {precision} outputs differ by {error:.3g} from the recorded ones "
                f"(allowed: {allowed:g})"
            )

    def __repr__(self) -> str:
        report = self.report
        return (
            f"Engine({report.model}, {report.provider}, {report.precision}, "
            f"threads={report.threads}, streams={report.streams})"
        )
