"""What a service answers: JSON, its fields and their meaning, which the OpenAPI description shows too."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["ok", "warned", "rejected", "unreadable"]
RESEARCH_ONLY = "For research only. Not a medical device: not for diagnosis or treatment."


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelName(_Answer):
    """Which model answered."""

    title: str = Field(description="Of its network.")
    checkpoint: str = Field(description="Digits of its weights and description; empty where not known.")
    version: str = Field(description="Of the cxrlab that answers.")


class FileAnswer(_Answer):
    """What the model makes of one file; values by label, null where there are none."""

    file: str = Field(description="Its name as it was given, without folders.")
    status: Status
    reason: str = Field(description="Why it is not ok, in words; else empty.")
    probabilities: dict[str, float] | None = Field(description="Before calibration, 0 to 1.")
    calibrated: dict[str, float] | None = Field(
        description="After calibration; the same where there is none."
    )
    thresholds: dict[str, float | None] = Field(
        description="On the scale of probabilities; null where none was chosen."
    )
    decisions: dict[str, int | None] | None = Field(
        description="1 where the probability reaches the threshold, else 0; null without a threshold."
    )


class PredictAnswer(_Answer):
    """One answer for each file, in the order of the files."""

    model: ModelName
    note: str = RESEARCH_ONLY
    files: list[FileAnswer]


class Heatmap(_Answer):
    """Where the model looked for a label."""

    png: str = Field(description="A data URL of a PNG: colours of the heat, transparent where there is none.")
    is_empty: bool = Field(description="Whether nothing in the image speaks for the label.")


class HeatmapAnswer(_Answer):
    """Heatmaps of one file, and the image under them."""

    model: ModelName
    note: str = RESEARCH_ONLY
    file: str
    reason: str = Field(description="Why there are none, in words; else empty.")
    method: str
    image: str | None = Field(description="A data URL of a JPEG: the field of view that the network sees.")
    heatmaps: dict[str, Heatmap]


class Limits(_Answer):
    """What a request may hold."""

    max_file_mb: int
    max_request_mb: int
    max_files: int
    max_megapixels: int
    decode_seconds: float


class CardAnswer(_Answer):
    """What is known of the model."""

    model: ModelName
    note: str = RESEARCH_ONLY
    task: str
    labels: list[str]
    thresholds: dict[str, float | None]
    threshold_rule: str
    calibration: str
    image_size: int
    channels: int
    resize: str
    views: list[str]
    trained_on: dict[str, object] | None
    initial_weights: dict[str, object] | None
    licence: str
    trained_with: str = Field(description="Version of the cxrlab that wrote the model.")
    caveats: list[str]
    has_heatmaps: bool
    limits: Limits


class HealthAnswer(_Answer):
    """Whether the service works."""

    status: Literal["ok"]
    version: str


class ErrorAnswer(_Answer):
    """Why a request was not answered."""

    detail: str
