"""KServe's server around an ONNX model that takes its time, off the event loop as KServe advises.

python kserve_slow.py --model_name NAME --http_port PORT --grpc_port PORT MODEL_FILE
"""

import argparse
import asyncio

import kserve
import numpy as np
import onnxruntime


class Slow(kserve.Model):
    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)
        self.input = self.session.get_inputs()[0].name
        self.ready = True

    async def predict(self, payload, headers=None):
        rows = np.array(payload["instances"], dtype=np.float32)
        run = self.session.run
        _, probabilities = await asyncio.get_running_loop().run_in_executor(None, run, None, {self.input: rows})
        return {"predictions": probabilities[:, 1].tolist()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    parser.add_argument("model_file")
    given, _ = parser.parse_known_args()
    kserve.ModelServer().start([Slow(given.model_name, given.model_file)])
