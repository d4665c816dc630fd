"""Who is on the phantoms: bodies, exposures and findings, drawn at random before anything is rendered.

Lengths are in half image widths: x runs from -1 to 1 towards the patient's left, which is the right of the
image, and y from -1 to 1 downwards.
"""

from dataclasses import dataclass, field, fields
from typing import cast

import numpy as np

FINDINGS = ("Effusion", "Nodule", "Opacity", "Cardiomegaly")

_NUM_IMAGES = (0.25, 0.20, 0.20, 0.15, 0.10, 0.10)
_KEPT = 0.85


def _between(low: float, high: float) -> float:
    # Without a default: the cast only lets the field below it be declared as what it will hold.
    return cast(float, field(metadata={"between": (low, high)}))


@dataclass(frozen=True)
class Anatomy:
    """What stays the same in all images of a patient, the place of each finding included.

    Each length, density (in mean free paths of the X-rays) or ratio is uniform between its two bounds. A
    side is -1 for the patient's right, 1 for the left.
    """

    female: bool
    seed: int
    effusion_side: int
    nodule_side: int
    opacity_side: int
    half_width: float = _between(0.64, 0.78)
    apex: float = _between(-0.84, -0.74)
    dome: float = _between(0.42, 0.56)
    dome_tilt: float = _between(0.01, 0.07)
    dome_curve: float = _between(0.6, 0.9)
    wall: float = _between(0.07, 0.20)
    fat: float = _between(0.0, 0.5)
    heart_ratio: float = _between(0.38, 0.46)
    enlarged_ratio: float = _between(0.54, 0.64)
    heart_height: float = _between(0.30, 0.36)
    heart_slant: float = _between(0.15, 0.40)
    mediastinum: float = _between(0.125, 0.165)
    aorta: float = _between(0.06, 0.10)
    rib_spacing: float = _between(0.145, 0.170)
    rib_slope: float = _between(0.20, 0.30)
    rib_density: float = _between(0.8, 1.2)
    clavicle: float = _between(0.15, 0.25)
    bubble: float = _between(-0.06, 0.09)
    breast: float = _between(0.27, 0.36)
    effusion_height: float = _between(0.22, 0.50)
    nodule_radius: float = _between(0.06, 0.10)
    nodule_density: float = _between(1.15, 1.7)
    nodule_across: float = _between(0.45, 0.75)
    nodule_down: float = _between(0.25, 0.66)
    opacity_radius: float = _between(0.20, 0.32)
    opacity_density: float = _between(0.75, 1.15)
    opacity_across: float = _between(0.42, 0.70)
    opacity_down: float = _between(0.30, 0.72)

    @classmethod
    def sample(cls, rng: np.random.Generator, *, female: bool) -> "Anatomy":
        """Draw a patient's body."""
        bounds = {spec.name: spec.metadata["between"] for spec in fields(cls) if spec.metadata}
        lengths = {name: float(rng.uniform(*between)) for name, between in bounds.items()}
        effusion, nodule, opacity = (int(side) for side in rng.choice((-1, 1), size=3))
        return cls(
            female=female,
            seed=int(rng.integers(2**32)),
            effusion_side=effusion,
            nodule_side=nodule,
            opacity_side=opacity,
            **lengths,
        )


@dataclass(frozen=True)
class Exposure:
    """What differs between the images of a patient.

    Attributes:
        anteroposterior: AP rather than PA: a larger heart, a shallower breath and less contrast.
        angle: Rotation in the image plane, in radians.
        shift: Displacement of the patient along x and y.
        scale: Magnification.
        breath: How far the diaphragm stands above its place in deep inspiration.
        middle: Thickness that is shown as middle grey, in mean free paths.
        contrast: Steepness of the film's curve there.
        photons: Count a pixel in air; fewer of them are more noise.
        severity: Factor on the height of an effusion and on the density of a nodule and an opacity.
        seed: Of the noise.
    """

    anteroposterior: bool
    angle: float
    shift: tuple[float, float]
    scale: float
    breath: float
    middle: float
    contrast: float
    photons: float
    severity: float
    seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator, *, anteroposterior: bool) -> "Exposure":
        """Draw how one image is taken."""
        bedside = float(anteroposterior)
        return cls(
            anteroposterior=anteroposterior,
            angle=float(rng.normal(0.0, 0.02 + 0.02 * bedside)),
            shift=(float(rng.normal(0.0, 0.03)), float(rng.normal(0.0, 0.03))),
            scale=float(rng.uniform(0.97, 1.06)),
            breath=float(rng.uniform(0.0, 0.07) + 0.06 * bedside),
            middle=float(rng.normal(2.15, 0.15)),
            contrast=float(rng.uniform(0.95, 1.25) - 0.1 * bedside),
            photons=float(rng.uniform(6000.0, 16000.0)),
            severity=float(rng.uniform(0.85, 1.15)),
            seed=int(rng.integers(2**32)),
        )


@dataclass(frozen=True)
class Radiograph:
    """One image that is to be drawn: whose it is, how it was taken and which ``FINDINGS`` it shows."""

    patient: int
    number: int
    age: int
    anatomy: Anatomy
    exposure: Exposure
    findings: frozenset[str]


def _redraw(rng: np.random.Generator, before: frozenset[str], *, age: int, kept: float) -> frozenset[str]:
    """Keep each finding as it was with probability ``kept``, else draw it anew.

    The heart grows with age, and an enlarged heart makes an effusion likelier.
    """
    now: set[str] = set()
    for name in ("Cardiomegaly", "Effusion", "Nodule", "Opacity"):
        probability = {
            "Cardiomegaly": 0.15 + 0.25 * min(max((age - 30) / 50, 0.0), 1.0),
            "Effusion": 0.16 + 0.26 * ("Cardiomegaly" in now),
        }.get(name, 0.25)
        stays, present = rng.random() < kept, rng.random() < probability
        if (name in before) if stays else present:
            now.add(name)
    return frozenset(now)


def _sample_patient(patient: int, seed: int) -> list[Radiograph]:
    rng = np.random.default_rng((seed, patient))
    age = int(np.clip(rng.normal(55.0, 16.0), 18, 90))
    anatomy = Anatomy.sample(rng, female=bool(rng.random() < 0.45))
    findings = _redraw(rng, frozenset(), age=age, kept=0.0)
    radiographs = []
    for number in range(int(rng.choice(len(_NUM_IMAGES), p=_NUM_IMAGES)) + 1):
        findings = _redraw(rng, findings, age=age, kept=_KEPT) if number else findings
        # The sick are taken at the bedside more often, as in hospitals: a view that hints at a finding.
        exposure = Exposure.sample(rng, anteroposterior=bool(rng.random() < (0.4 if findings else 0.2)))
        radiographs.append(Radiograph(patient, number, age, anatomy, exposure, findings))
    return radiographs


def sample(*, num_patients: int, seed: int) -> list[Radiograph]:
    """Draw the patients and 1 to 6 images of each, about 3 on average.

    A finding persists between the images of a patient with high probability, and always in its place. A
    patient depends on ``seed`` and on its own number only, so that a larger set starts with the smaller one.

    Example:
        >>> [image.number for image in sample(num_patients=2, seed=0) if image.patient == 0]
        [0, 1, 2]
    """
    return [image for patient in range(num_patients) for image in _sample_patient(patient, seed)]
