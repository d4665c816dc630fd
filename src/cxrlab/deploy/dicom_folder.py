"""The DICOM results of ``cxrlab predict``: a report of each DICOM file, and heatmaps of what it has."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cxrlab.data.decode_files import DecodedFile
from cxrlab.data.dicom import is_dicom
from cxrlab.deploy.dicom_results import Finding, Overlay, check_highdicom, write_dicom_results
from cxrlab.deploy.model import ImagePrediction, Model
from cxrlab.errors import ConfigError, DataError
from cxrlab.heatmaps.drawing import overlay, radiograph_picture


class DicomFolder:
    """A folder of DICOM results, filled file by file.

    Args:
        folder: It is made once there is a result.
        model: Whose predictions.
        method: Of the heatmaps, see :data:`cxrlab.heatmaps.settings.METHODS`.

    Attributes:
        num_files: DICOM files that have results.
        no_heatmaps: Why there are reports alone; "" where there are heatmaps too.

    Raises:
        MissingPackageError: If highdicom is not installed.
    """

    def __init__(self, folder: Path, model: Model, method: str) -> None:
        check_highdicom()
        self.folder, self.num_files, self.no_heatmaps = folder, 0, ""
        self._model, self._method = model, method
        try:
            model.check_explained(method)
        except ConfigError as error:
            self.no_heatmaps = str(error)

    def add(self, file: DecodedFile, prediction: ImagePrediction, row: int) -> ImagePrediction:
        """Write the results of a file if it is a DICOM file and has a prediction.

        Args:
            file: Decoded.
            prediction: Of it.
            row: In the table, by which the results are named.

        Returns:
            The prediction; with a warning where the file's header ties it to no patient or study.

        Raises:
            OSError: If the results cannot be written.
        """
        if prediction.status not in ("ok", "warned"):
            return prediction
        try:
            data = file.file.read()
            if not is_dicom(data):
                return prediction
            write_dicom_results(
                data,
                self.folder,
                "_".join([f"{row:06d}", *re.findall(r"\w+", Path(file.file.name).stem[:60], re.ASCII)]),
                findings_of(self._model, prediction),
                self._heatmaps(file, prediction),
                self._model.record,
                remark=prediction.reason,
            )
        except DataError as error:
            reason = f"{prediction.reason} {error}".strip()
            return replace(prediction, status="warned", reason=reason)
        self.num_files += 1
        return prediction

    def _heatmaps(self, file: DecodedFile, prediction: ImagePrediction) -> dict[str, Overlay]:
        """Return the radiograph with the heat of each label that is predicted positive."""
        columns = [int(column) for column in np.flatnonzero(prediction.decisions == 1)]
        if self.no_heatmaps or not columns:
            return {}
        pixels = file.images[0].pixels
        radiograph = radiograph_picture(torch.from_numpy(pixels))
        maps = self._model.explain(pixels, columns, self._method)
        return {
            self._model.labels[column]: np.asarray(overlay(radiograph, heatmap))
            for column, heatmap in zip(columns, maps, strict=True)
        }


def findings_of(model: Model, prediction: ImagePrediction) -> list[Finding]:
    """Return what a model says of each of its labels."""
    values = zip(
        model.labels, prediction.probabilities, prediction.calibrated, prediction.decisions, strict=True
    )
    return [
        Finding(
            label=label,
            probability=float(probability),
            calibrated=float(calibrated),
            threshold=model.record.thresholds[label],
            is_positive=None if np.isnan(decision) else bool(decision),
        )
        for label, probability, calibrated, decision in values
    ]
