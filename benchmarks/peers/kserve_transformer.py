"""KServe's transformer over Feast's feature server, as KServe's Feast sample is: the features of the request's entities
come from ``feast serve`` by one POST of ``requests``, the SDK sends them on to the predictor.

    python kserve_transformer.py --model_name NAME --predictor_host HOST:PORT --predictor_protocol v1|grpc-v2
        --http_port PORT --grpc_port PORT FEAST_URL ENTITIES FEATURES

ENTITIES and FEATURES are separated by commas; FEATURES are references (view:name) in the model's order. Unlike the
sample it logs no payload and takes gRPC, too.
"""

import argparse

import kserve
import numpy as np
import requests
from kserve import InferInput, InferRequest


class FeastTransformer(kserve.Model):
    def __init__(self, name: str, feast_url: str, entities: list[str], features: list[str]) -> None:
        super().__init__(name)
        self.feast_url, self.entities, self.features = feast_url, entities, features
        self.columns = [reference.replace(":", "__") for reference in features]
        self.ready = True

    def preprocess(self, payload, headers=None):
        if isinstance(payload, InferRequest):
            given = {one.name: one.as_numpy().tolist() for one in payload.inputs}
        else:
            given = dict(zip(self.entities, map(list, zip(*payload["instances"], strict=True)), strict=True))
        asked = {
            "features": self.features,
            "entities": {name: given[name] for name in self.entities},
            "full_feature_names": True,
        }
        reply = requests.post(f"{self.feast_url}/get-online-features", json=asked)
        reply.raise_for_status()
        told = reply.json()
        values = dict(zip(told["metadata"]["feature_names"], (one["values"] for one in told["results"]), strict=True))
        rows = [list(row) for row in zip(*(values[column] for column in self.columns), strict=True)]
        if not isinstance(payload, InferRequest):
            return {"instances": rows}
        tensor = InferInput("rows", [len(rows), len(self.columns)], "FP64")
        tensor.set_data_from_numpy(np.array(rows, dtype=np.float64), binary_data=False)
        return InferRequest(model_name=self.name, infer_inputs=[tensor])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    for argument in ("feast_url", "entities", "features"):
        parser.add_argument(argument)
    given, _ = parser.parse_known_args()
    transformer = FeastTransformer(
        given.model_name, given.feast_url, given.entities.split(","), given.features.split(",")
    )
    kserve.ModelServer().start([transformer])
