"""A bundle whose model takes its time: the twin of tiny's trees does some millions of multiplications besides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from memory.signing import KEY, trust_in
from memory.tiny import write_bundle
from tidewheel.bundle.files import MODEL_ONNX
from tidewheel.bundle.manifest import write_manifest
from tidewheel.bundle.signature import sign_bundle

WIDTH = 1024


def slowed(model: onnx.ModelProto, layers: int, shrink: float = WIDTH) -> onnx.ModelProto:
    """The same scores, after ``layers`` products with a matrix of WIDTH x WIDTH that come to nothing.

    By the root of WIDTH as ``shrink`` numbers keep their size; else they get so small that each costs more.
    """
    graph = model.graph
    (given,) = [one.name for one in graph.input]
    k = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    random = np.random.default_rng(3)
    for name, shape in (("slow_first", (k, WIDTH)), ("slow_each", (WIDTH, WIDTH))):
        values = (random.normal(size=shape) / shrink).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, name))
    graph.initializer.append(numpy_helper.from_array(np.float32(0), "slow_zero"))
    for node in graph.node:
        node.output[:] = ["fast_probabilities" if one == "probabilities" else one for one in node.output]
    nodes = [
        helper.make_node("IsNaN", [given], ["slow_missing"]),
        helper.make_node("Where", ["slow_missing", "slow_zero", given], ["slow_given"]),
        helper.make_node("MatMul", ["slow_given", "slow_first"], ["slow_0"]),
    ]
    for layer in range(layers):
        nodes.append(helper.make_node("MatMul", [f"slow_{layer}", "slow_each"], [f"slow_{layer + 1}"]))
    graph.initializer.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "slow_axis"))
    nodes += [
        helper.make_node("ReduceSum", [f"slow_{layers}", "slow_axis"], ["slow_sum"], keepdims=1),
        helper.make_node("Mul", ["slow_sum", "slow_zero"], ["slow_nothing"]),
        helper.make_node("Add", ["fast_probabilities", "slow_nothing"], ["probabilities"]),
    ]
    graph.node.extend(nodes)
    if all(one.domain for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 15))
    onnx.checker.check_model(model)
    return model


def place_slow_bundle(bundles: Path, scratch: Path, layers: int, **how: object) -> str:
    """Under its digest in ``bundles``, signed by who is trusted there."""
    trust_in(bundles.parent)
    write_bundle(scratch, key=None, **how)  # type: ignore[arg-type]
    path = scratch / MODEL_ONNX
    onnx.save(slowed(onnx.load(path), layers), path)
    digest = write_manifest(scratch)
    sign_bundle(scratch, digest, KEY)
    bundles.mkdir(parents=True, exist_ok=True)
    scratch.rename(bundles / digest)
    return digest
