"""Scores rows with the ONNX twin: one thread, no training library in the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tidewheel.errors import ContractViolation


class OnnxScorer:
    """``model`` is a path or the bytes of model.onnx; raises ContractViolation where it is not what a bundle holds."""

    def __init__(self, model: Path | bytes, n_features: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # rows are few; a second thread costs more than it brings
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # bytes, not a path: then a model cannot name other files for its weights
        data = model if isinstance(model, bytes) else model.read_bytes()
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a class of its own per status code
            raise ContractViolation(f"model.onnx: cannot be loaded: {str(error).splitlines()[0]}") from error
        inputs, outputs = self._session.get_inputs(), [output.name for output in self._session.get_outputs()]
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or inputs[0].shape[-1] != n_features:
            got = [(item.name, item.type, item.shape) for item in inputs]
            raise ContractViolation(f"model.onnx: must take one float tensor [n, {n_features}] (got {got})")
        if "probabilities" not in outputs:
            raise ContractViolation(f"model.onnx: must have an output 'probabilities' (got {outputs})")
        self.n_features = n_features
        self._input = inputs[0].name

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Float32 [n, k], NaN is missing -> float64 [n], the probability of a positive label."""
        probabilities = self._session.run(["probabilities"], {self._input: x})[0]
        return np.asarray(probabilities[:, 1], dtype=np.float64)
