"""ONNX files: a graph with its preprocessing and calibration, and its record in the metadata."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.export import ExportedProgram

import cxrlab
from cxrlab.deploy.backend import BatchOutput, Pixels, check_pixels
from cxrlab.deploy.graph import INPUT, OUTPUTS
from cxrlab.deploy.metadata import check_width, read_texts
from cxrlab.deploy.record import ModelRecord
from cxrlab.errors import CheckpointError, ConfigError, ExportError, MissingPackageError
from cxrlab.runs.reference import TrainingReference

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OPSET = 18
"""Version of ONNX's operators: the first that has all of torch's exporter, and known since 2022."""

_LARGEST_BYTES = 2_000_000_000  # a protobuf message ends at 2 GiB
_INSTALL = "pip install 'cxrlab[export]'"


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a traced graph as an ONNX file, without any metadata.

    Args:
        program: As :func:`cxrlab.deploy.graph.trace` gives it.
        path: The file, replaced if it is there.

    Raises:
        MissingPackageError: If onnx or onnxscript is not installed.
        ExportError: If an operator of the network is not known to ONNX: it is named.
    """
    _need("onnx", "onnxscript")
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > _LARGEST_BYTES:
        raise ExportError(
            f"The model has {size / 1e9:.1f} GB of weights, and one ONNX file holds 2 GB. Set format=torch, "
            "or precision=fp16."
        )
    num_outputs = len(program.graph_signature.user_outputs)
    try:
        with warnings.catch_warnings():
            # https://github.com/pytorch/pytorch/issues/160761
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS[:num_outputs]),
                dynamic_shapes={INPUT: {0: "batch"}},
                verbose=False,
            )
    except Exception as error:  # of classes that torch keeps to itself
        raise ExportError(
            f"ONNX cannot hold this network: {_operator_of(error)}. Set format=torch, or leave out what uses "
            "it."
        ) from error
    if exported is None:
        raise ExportError("torch's exporter to ONNX gave nothing.")
    exported.save(str(path), external_data=False)


def _operator_of(error: Exception) -> str:
    """Return which operator an exporter stumbled over, in words."""
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    found = re.search(r"torch\.ops\.([\w.]+)|OpOverload\(op='([\w.]+)'", text)
    if found:
        return f"its operator {found[1] or found[2]} cannot be exported"
    return f"{type(error).__name__}: {text.strip().partition(chr(10))[0][:200]}"


def add_metadata(path: Path, texts: Mapping[str, str]) -> None:
    """Write into an ONNX file what goes with its graph; what stood there is replaced.

    Args:
        path: The file.
        texts: As :func:`cxrlab.deploy.metadata.texts_of` gives them.
    """
    _need("onnx")
    import onnx

    model = onnx.load(str(path))
    model.producer_name, model.producer_version = "cxrlab", cxrlab.__version__
    model.doc_string = "Research only: not for clinical use. Input: decoded grey values, 0 to 255."
    del model.metadata_props[:]
    for name, text in texts.items():
        model.metadata_props.add(key=name, value=text)
    onnx.save(model, str(path))


class OnnxBackend:
    """An ONNX file that computes, on as many threads as torch has.

    Args:
        session: Of onnxruntime, with :func:`write_onnx`'s input and outputs.
        record: Of the file.
    """

    def __init__(self, session: "InferenceSession", record: ModelRecord) -> None:
        self.session = session
        self.shape = (record.channels, record.image_size, record.image_size)
        self.outputs = [output.name for output in session.get_outputs()]

    def __call__(self, images: Pixels, /) -> BatchOutput:
        """Return what the file makes of images, ``(B, C, H, W)``.

        Raises:
            DataError: If they are not of its size, or no uint8.
        """
        check_pixels(images, self.shape)
        values = dict(zip(self.outputs, self.session.run(None, {INPUT: images}), strict=True))
        features = values.get("features")
        return BatchOutput(
            values["probabilities"].astype(np.float64),
            values["calibrated"].astype(np.float64),
            None if features is None else features.astype(np.float32),
        )


def read_onnx(path: Path, device: str = "auto") -> tuple[ModelRecord, OnnxBackend, TrainingReference | None]:
    """Read an ONNX file that cxrlab wrote; no code in it is run.

    Args:
        path: The file.
        device: ``cpu``, ``cuda``, or ``auto`` for the GPU where onnxruntime has one.

    Raises:
        MissingPackageError: If onnxruntime is not installed.
        ConfigError: If there is no such device.
        CheckpointError: If it is no ONNX file, one of another program, or its metadata do not fit its graph.
    """
    session = _session(path, device)
    record, reference = read_texts(session.get_modelmeta().custom_metadata_map, path)
    _check_graph(session, record, path)
    widths = {output.name: output.shape[-1] for output in session.get_outputs()}
    check_width(reference, widths.get("features"), path)
    return record, OnnxBackend(session, record), reference


def _session(path: Path, device: str) -> "InferenceSession":
    _need("onnxruntime")
    import onnxruntime

    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise ConfigError(
            f"device={device}: this onnxruntime computes on the processor only. Set device=cpu, or "
            "pip install onnxruntime-gpu."
        )
    if device != "auto" and device != "cpu" and not device.startswith("cuda"):
        raise ConfigError(f"device={device} must be auto, cpu or cuda for an exported file.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # what it could not fuse is no news to a person
    providers = ["CPUExecutionProvider"]
    if has_cuda and device != "cpu":
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # of classes that onnxruntime keeps to itself
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be loaded as an ONNX file: {reason}"
        ) from error


def _check_graph(session: "InferenceSession", record: ModelRecord, path: Path) -> None:
    """Refuse a graph that takes or gives something else than its record says."""
    size, num_labels = record.image_size, len(record.labels)
    inputs = [(each.name, each.type, each.shape[1:]) for each in session.get_inputs()]
    wanted = [(INPUT, "tensor(uint8)", [record.channels, size, size])]
    outputs = {each.name: (each.type, each.shape[1:]) for each in session.get_outputs()}
    given = {name: outputs.get(name) for name in OUTPUTS[:2]}
    if inputs != wanted or any(value != ("tensor(float)", [num_labels]) for value in given.values()):
        raise CheckpointError(
            f"{path}: the graph takes {inputs} and gives {outputs}, and its metadata speak of {num_labels} "
            f"labels of images {wanted[0][2]}: the file was edited."
        )


def _need(*packages: str) -> None:
    import importlib

    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingPackageError(f"ONNX files need {package}: {_INSTALL}") from error
