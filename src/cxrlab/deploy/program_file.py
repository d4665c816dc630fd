"""Programs of torch.export (.pt2): the same graph, for those who compute with torch and not with ONNX.

Torch unpickles what such a file holds, so that a stranger's may run code: unlike an ONNX file it is only for
who knows where it is from.
"""

import io
import logging
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from cxrlab.deploy.backend import BatchOutput, Pixels, check_pixels
from cxrlab.deploy.metadata import RECORD, check_width, read_texts
from cxrlab.deploy.record import ModelRecord
from cxrlab.errors import CheckpointError
from cxrlab.runs.predict import named_device
from cxrlab.runs.reference import TrainingReference


def write_program(program: ExportedProgram, path: Path, texts: Mapping[str, str]) -> None:
    """Write a traced graph with its metadata as a file of torch.export.

    Args:
        program: As :func:`cxrlab.deploy.graph.trace` gives it.
        path: The file, replaced if it is there.
        texts: As :func:`cxrlab.deploy.metadata.texts_of` gives them.
    """
    content = io.BytesIO()  # where a disk is full torch's own writer ends the process
    torch.export.save(program, content, extra_files=dict(texts))
    path.write_bytes(content.getbuffer())


class ProgramBackend:
    """A program that computes.

    Args:
        program: Of a file.
        record: Of the same file.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: If there is no such device.
    """

    def __init__(self, program: ExportedProgram, record: ModelRecord, device: str = "cpu") -> None:
        self.device = named_device(device)
        if self.device.type != "cpu":
            program = move_to_device_pass(program, self.device)
        self.module = program.module()
        self.shape = (record.channels, record.image_size, record.image_size)

    def __call__(self, images: Pixels, /) -> BatchOutput:
        """Return what the program makes of images, ``(B, C, H, W)``.

        Raises:
            DataError: If they are not of its size, or no uint8.
        """
        check_pixels(images, self.shape)
        with torch.inference_mode():
            values = [value.cpu() for value in self.module(torch.from_numpy(images).to(self.device))]
        features = values[2].numpy() if len(values) > 2 else None
        return BatchOutput(values[1].double().numpy(), values[0].double().numpy(), features)


def read_program(
    path: Path, device: str = "cpu"
) -> tuple[ModelRecord, ProgramBackend, TrainingReference | None]:
    """Read a program that cxrlab wrote. Torch unpickles it: never one of a stranger.

    Its metadata are read first, and nothing is unpickled of a file without them; that is no protection.

    Args:
        path: The file.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        CheckpointError: If it is another file, or its metadata cannot be meant.
        ConfigError: If there is no such device.
    """
    record, reference = read_texts(_texts_in(path), path)
    log = logging.getLogger("torch.export")
    level = log.level
    try:
        log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            with path.open("rb") as file:
                program = torch.export.load(file)
    except Exception as error:  # a file of anybody's may fail in any way
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} cannot be loaded by torch {torch.__version__}: {reason} Export it again with this "
            "version, or use the ONNX file, which does not depend on it."
        ) from error
    finally:
        log.setLevel(level)
    backend = ProgramBackend(program, record, device)
    _check_outputs(backend, record, reference, path)
    return record, backend, reference


def _texts_in(path: Path) -> dict[str, str]:
    """Return the metadata of a program, without unpickling anything."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {
                Path(name).name: name for name in archive.namelist() if Path(name).parent.name == "extra"
            }
            return {key: archive.read(name).decode("utf-8") for key, name in names.items()}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} cannot be read: there is no such file.") from error
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{path} is no program of torch.export: {error}.") from error


def _check_outputs(
    backend: ProgramBackend, record: ModelRecord, reference: TrainingReference | None, path: Path
) -> None:
    output = backend(np.zeros((1, *backend.shape), dtype=np.uint8))
    if output.probabilities.shape != (1, len(record.labels)):
        raise CheckpointError(
            f"{path}: the program gives {output.probabilities.shape[1]} outputs, and its metadata name "
            f"{len(record.labels)} labels ({RECORD}): the file was edited."
        )
    check_width(reference, None if output.features is None else output.features.shape[1], path)
