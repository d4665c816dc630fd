"""What a service does with uploads: decode them, put them through the model, tell what came of it."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

import cxrlab
from cxrlab.data.decode_files import DecodedFile
from cxrlab.data.inputs import ImageFile
from cxrlab.deploy.model import ImagePrediction, Model, Status
from cxrlab.deploy.service import answers
from cxrlab.deploy.service.batching import Batcher
from cxrlab.deploy.service.counters import Counters
from cxrlab.deploy.service.decoder_process import DecodeSettings
from cxrlab.deploy.service.decoding import DecodedUpload, DecoderPool
from cxrlab.deploy.service.pictures import data_url, heat_png
from cxrlab.deploy.service.settings import ServiceSettings
from cxrlab.deploy.service.uploads import Upload, Waiting
from cxrlab.errors import ConfigError, DataError

log = logging.getLogger(__name__)

METHOD = "gradcam"


class Service:
    """A model with all that it needs to answer requests.

    Args:
        model: That predicts.
        settings: Limits.

    Attributes:
        counters: What was done so far.
        waiting: Bytes of uploads in memory.
        name: Which model this is.
        has_heatmaps: Whether the model's network can be explained; an exported file cannot.
    """

    decoders: DecoderPool
    batcher: Batcher[DecodedFile, ImagePrediction]

    def __init__(self, model: Model, settings: ServiceSettings) -> None:
        self.model, self.settings = model, settings
        self.counters = Counters()
        self.waiting = Waiting(settings.max_waiting_bytes)
        record = model.record
        self.name = answers.ModelName(
            title=record.title, checkpoint=record.checkpoint, version=cxrlab.__version__
        )
        self.labels = list(record.labels)
        self._thresholds = dict(record.thresholds)
        self.has_heatmaps = _has_heatmaps(model)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Start the decoders and the batches, and end them."""
        model, settings = self.model, self.settings
        ways = DecodeSettings(tuple(model.decoding), settings.max_pixels)
        self.decoders = DecoderPool(ways, settings.count_decoders(), settings.decode_seconds)
        predict = partial(model.predict_decoded, on_unlike=settings.on_unlike)
        self.batcher = Batcher(predict, settings.batch_size, self.counters.count_batch)
        try:
            await asyncio.to_thread(self.decoders.wait_until_ready)
            yield
        finally:
            self.batcher.close()
            self.decoders.close()

    async def predict(self, upload: Upload) -> answers.FileAnswer:
        """Return what the model makes of a file; one that cannot be read is an answer too."""
        try:
            decoded = await self.decoders.decode(upload.data, upload.name)
        except DataError as error:
            self.counters.files["unreadable"] += 1
            return self._answer(upload.name, "unreadable", str(error))
        file = DecodedFile(ImageFile(upload.name, Path(upload.name)), decoded.images)
        prediction = await self.batcher.predict(file)
        self.counters.files[prediction.status] += 1
        return self._answer(upload.name, prediction.status, prediction.reason, prediction)

    def _answer(
        self, name: str, status: Status, reason: str, prediction: ImagePrediction | None = None
    ) -> answers.FileAnswer:
        shown = prediction if status in ("ok", "warned") else None
        return answers.FileAnswer(
            file=name,
            status=status,
            reason=reason,
            probabilities=None if shown is None else self._by_label(shown.probabilities),
            calibrated=None if shown is None else self._by_label(shown.calibrated),
            thresholds=self._thresholds,
            decisions=None if shown is None else self._decisions(shown.decisions),
        )

    def _by_label(self, values: Iterable[float]) -> dict[str, float]:
        return {label: float(value) for label, value in zip(self.labels, values, strict=True)}

    def _decisions(self, values: Iterable[float]) -> dict[str, int | None]:
        named = self._by_label(values)
        return {label: None if math.isnan(value) else int(value) for label, value in named.items()}

    async def explain(self, upload: Upload, labels: Sequence[str]) -> answers.HeatmapAnswer:
        """Return heatmaps of one file, with the picture that they lie on.

        Args:
            upload: The file.
            labels: Of the heatmaps.

        Raises:
            ConfigError: If there is no such label.
        """
        unknown = [label for label in labels if label not in self.labels]
        if unknown:
            raise ConfigError(f"There is no label {unknown[0][:100]!r}; there are {', '.join(self.labels)}.")
        try:
            decoded = await self.decoders.decode(upload.data, upload.name, with_picture=True)
        except DataError as error:
            return self._heatmaps(upload.name, str(error), None, {})
        image = data_url(decoded.picture, "jpeg")
        if not self.has_heatmaps:
            return self._heatmaps(upload.name, "This model has no heatmaps.", image, {})
        heatmaps: dict[str, answers.Heatmap] = {}
        for label in dict.fromkeys(labels):  # one by one: who asks for many does not keep others waiting
            heatmaps[label] = await self.batcher.run(partial(self._picture, decoded, label))
        return self._heatmaps(upload.name, "", image, heatmaps)

    def _heatmaps(
        self, name: str, reason: str, image: str | None, heatmaps: dict[str, answers.Heatmap]
    ) -> answers.HeatmapAnswer:
        return answers.HeatmapAnswer(
            model=self.name, file=name, reason=reason, method=METHOD, image=image, heatmaps=heatmaps
        )

    def _picture(self, decoded: DecodedUpload, label: str) -> answers.Heatmap:
        (heatmap,) = self.model.explain(decoded.images[0].pixels, [self.labels.index(label)], METHOD)
        return _heatmap(heatmap.numpy())


def _heatmap(values: npt.NDArray[np.float32]) -> answers.Heatmap:
    return answers.Heatmap(png=data_url(heat_png(values), "png"), is_empty=not bool((values > 0).any()))


def _has_heatmaps(model: Model) -> bool:
    try:
        model.check_explained(METHOD)
    except ConfigError as error:
        log.warning("There are no heatmaps. %s", error)
        return False
    return True
